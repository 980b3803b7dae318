package msl

import (
	"cmp"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// maxMessages is how many messages one exchange may have in both directions together (MSL
// wiki, "Messages").
const maxMessages = 12

// Limits bound the cost of one message. A zero field means its default.
type Limits struct {
	Header           int // bytes of a header object; default 1 MiB
	Chunk            int // bytes of a payload chunk object; default 16 MiB, for a client 64 MiB
	Depth            int // nesting of objects; default 32
	Held             int // bytes of an answer that waits for the end of its request, and of the request; default 16 MiB
	Tokens           int // service tokens per message, and key requests, of which eight are tried; default 64. From a sender that proved nothing, one version of the keys is tried for each token, and 64 others in all
	Inflate          int // growth factor of a compressed part; default 200
	Sessions         int // opened master tokens remembered; default 10,000
	ErrorsPerSecond  int // signed answers per second to senders that proved nothing, and as many refusals of senders that did; default 200
	ErrorsPerSource  int // the same for each source, or each entity that proved itself; default 20
	PasswordsAtATime int // users authenticated at the same time; default 4

	// Unproven and Proven bound the memory, in bytes, of all messages of a server. One
	// source or entity may have at most half of it, but always as much as one message may
	// occupy, which is 195 MiB with the defaults above.
	Unproven int64 // for unauthenticated senders; default 128 MiB, raised to the 195 MiB of one message
	Proven   int64 // for authenticated senders; default 512 MiB
}

// Effective returns the limits of a server with the defaults filled in.
func (l Limits) Effective() Limits {
	l = Limits{
		Header:           cmp.Or(l.Header, 1<<20),
		Chunk:            cmp.Or(l.Chunk, 16<<20),
		Depth:            cmp.Or(l.Depth, 32),
		Held:             cmp.Or(l.Held, 16<<20),
		Tokens:           cmp.Or(l.Tokens, 64),
		Inflate:          cmp.Or(l.Inflate, maxInflate),
		Sessions:         cmp.Or(l.Sessions, 10000),
		ErrorsPerSecond:  cmp.Or(l.ErrorsPerSecond, 200),
		ErrorsPerSource:  cmp.Or(l.ErrorsPerSource, 20),
		PasswordsAtATime: cmp.Or(l.PasswordsAtATime, 4),
		Unproven:         cmp.Or(l.Unproven, 128<<20),
		Proven:           cmp.Or(l.Proven, 512<<20),
	}
	one := l.oneMessage()
	l.Unproven, l.Proven = max(l.Unproven, one), max(l.Proven, one)
	return l
}

// forClient returns the limits of a client, which asked for what it receives: the
// reference stack answers in a single chunk, 2.4 times the size of the data.
func (l Limits) forClient() Limits {
	l.Chunk = cmp.Or(l.Chunk, 64<<20)
	return l.Effective()
}

// inflation limits a compressed part whose memory is not counted.
func (l Limits) inflation() wire.Inflation { return wire.Inflation{Ratio: l.Inflate, Most: l.Chunk} }

func (l Limits) wire() wire.Limits {
	return wire.Limits{Header: l.Header, Object: l.Chunk, Depth: l.Depth}
}
