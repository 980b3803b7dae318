package config

import (
	"cmp"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Limits bound what others can make a server do. Zero means the default.
type Limits struct {
	Body            int64         `yaml:"body" example:"67108864"`         // bytes of a request; a longer one gets HTTP 413; negative: no limit
	Header          int           `yaml:"header" example:"1048576"`        // bytes of a message header
	Chunk           int           `yaml:"chunk" example:"16777216"`        // bytes of a payload chunk
	Held            int           `yaml:"held" example:"16777216"`         // bytes of an answer that wait until its request has been read, and of the request
	Inflate         int           `yaml:"inflate" example:"200"`           // largest ratio of decompressed to compressed data
	Tokens          int           `yaml:"tokens" example:"64"`             // service tokens in one message; also key requests
	Depth           int           `yaml:"depth" example:"32"`              // nesting of JSON objects
	Sessions        int           `yaml:"sessions" example:"10000"`        // master tokens to remember
	ErrorsPerSecond int           `yaml:"errors-per-second" example:"200"` // signed answers to unauthenticated senders; as many refusals of authenticated ones
	ErrorsPerSource int           `yaml:"errors-per-source" example:"20"`  // the same for one source or one entity; an IPv6 source is a /64 network
	Passwords       int           `yaml:"passwords" example:"4"`           // concurrent password checks; each takes up to twice the memory of argon2, by default 128 MiB
	Timeout         time.Duration `yaml:"timeout" example:"1m"`            // of one exchange; shortly before, the device is asked to try again; negative: no limit
	Idle            time.Duration `yaml:"idle"`                            // for streams, instead of timeout: the longest pause; default: with server.http same as timeout, else none

	Connections          int   `yaml:"connections" example:"1024"`           // concurrent connections; beyond that, the one that has been idle longest is closed; negative: no limit
	ConnectionsPerSource int   `yaml:"connections-per-source" example:"256"` // default: a quarter of connections; an IPv6 source is a /64 network
	Unproven             int64 `yaml:"unproven" example:"134217728"`         // bytes of memory for messages of unauthenticated senders, at least what one message may take: 195 MiB with these limits
	Proven               int64 `yaml:"proven" example:"536870912"`           // the same for authenticated senders; one source or entity gets at most half of either
}

// exchange returns the time for one exchange; zero or less means no limit.
func (l Limits) exchange() time.Duration { return cmp.Or(l.Timeout, time.Minute) }

// held returns how many bytes of a message may be kept in memory until it is read.
func (l Limits) held() int { return msl.Limits{Held: l.Held}.Effective().Held }

// ClientLimits bound the cost of an answer. Zero means the default.
type ClientLimits struct {
	Answer  int64 `yaml:"answer" example:"1073741824"` // bytes in total
	Header  int   `yaml:"header" example:"1048576"`    // bytes of a message header
	Chunk   int   `yaml:"chunk" example:"67108864"`    // bytes of a payload chunk, 2.4 times those of the data; the reference stack sends all data in one chunk
	Inflate int   `yaml:"inflate" example:"200"`       // largest ratio of decompressed to compressed data
	Tokens  int   `yaml:"tokens" example:"64"`         // service tokens in one message
	Depth   int   `yaml:"depth" example:"32"`          // nesting of JSON objects
}
