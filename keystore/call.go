package keystore

import "time"

// A Call is an operation that a device did, for those who measure.
type Call struct {
	// Function is that of the device: the one that does the work, such as C_Sign. It is
	// empty if the operation never reached the device.
	Function string
	Queue    time.Duration // until the device was free for it
	Run      time.Duration // in the device
	Err      error
}
