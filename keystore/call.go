package keystore

import "time"

// A Call describes one operation of a device, for measurements.
type Call struct {
	// Function is the device's function that did the work, such as C_Sign. It is empty if the
	// operation never reached the device.
	Function string
	Queue    time.Duration // until the device was free, or given up; 0 also if it could not be reached
	Run      time.Duration // in the device
	Err      error
}
