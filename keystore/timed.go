package keystore

import "time"

// A Timed is a key in a device that callers wait for, so that a caller with several
// operations can run some of them concurrently. A key whose operations use the CPU need not
// be a Timed.
type Timed interface {
	Key
	// Latency is the shortest recent time of an operation on up to 4 KiB, without the wait for
	// a free session of the device. Zero means unknown.
	Latency() time.Duration
}
