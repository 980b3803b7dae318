package keystore

import "time"

// A Timed is a key in a device that is waited for. A caller with several operations to
// do can then have some done at the same time. A key whose operations take the processor
// instead need not be a Timed.
type Timed interface {
	Key
	// Latency is the least time that an operation on up to 4 KiB has taken of late,
	// without the wait for a free session of the device. Zero means that it is not known.
	Latency() time.Duration
}
