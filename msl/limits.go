package msl

import "github.com/msl-hsm/msl-hsm/msl/internal/wire"

// maxMessages is how many messages one exchange may have, both directions
// together (MSL wiki, "Messages").
const maxMessages = 12

// Limits bound the cost of one message. A zero field means its default.
type Limits struct {
	Header           int // bytes of a header object; default 1 MiB
	Chunk            int // bytes of a payload chunk object; default 16 MiB, of a client 64 MiB
	Depth            int // nesting of objects; default 32
	Held             int // bytes of an answer that wait for the end of its request, and of the request; default 16 MiB
	Tokens           int // service tokens of one message, and key requests; default 64
	Inflate          int // how many times a compressed part may grow; default 200
	Sessions         int // opened master tokens that are remembered; default 10,000
	ErrorsPerSecond  int // signed answers to senders that proved nothing, in all, and as many refusals of those that did; default 200
	ErrorsPerSource  int // and for each source, or each entity that proved itself; default 20
	PasswordsAtATime int // users authenticated at once; default 4

	// Unproven and Proven bound the memory, in bytes, of all messages of a server
	// together. One source or entity may have at most half of it, but always as
	// much as one message may occupy, which is 195 MiB with the defaults above.
	Unproven int64 // of senders that proved nothing, or not yet; default 128 MiB, and so 195 MiB
	Proven   int64 // for authenticated senders; default 512 MiB
}

func orInt[T int | int64](n, absent T) T {
	if n == 0 {
		return absent
	}
	return n
}

func (l Limits) withDefaults() Limits {
	l = Limits{
		Header:           orInt(l.Header, 1<<20),
		Chunk:            orInt(l.Chunk, 16<<20),
		Depth:            orInt(l.Depth, 32),
		Held:             orInt(l.Held, 16<<20),
		Tokens:           orInt(l.Tokens, 64),
		Inflate:          orInt(l.Inflate, maxInflate),
		Sessions:         orInt(l.Sessions, 10000),
		ErrorsPerSecond:  orInt(l.ErrorsPerSecond, 200),
		ErrorsPerSource:  orInt(l.ErrorsPerSource, 20),
		PasswordsAtATime: orInt(l.PasswordsAtATime, 4),
		Unproven:         orInt(l.Unproven, 128<<20),
		Proven:           orInt(l.Proven, 512<<20),
	}
	one := l.oneMessage()
	l.Unproven, l.Proven = max(l.Unproven, one), max(l.Proven, one)
	return l
}

// forClient returns the limits of a client, which asked for what it receives: the
// reference stack answers in one chunk, which has 2.4 times the size of the data.
func (l Limits) forClient() Limits {
	l.Chunk = orInt(l.Chunk, 64<<20)
	return l.withDefaults()
}

// inflation limits a compressed part that is not counted elsewhere.
func (l Limits) inflation() wire.Inflation { return wire.Inflation{Ratio: l.Inflate, Most: l.Chunk} }

// Effective returns the limits of a server with the defaults filled in.
func (l Limits) Effective() Limits { return l.withDefaults() }

func (l Limits) wire() wire.Limits {
	return wire.Limits{Header: l.Header, Object: l.Chunk, Depth: l.Depth}
}
