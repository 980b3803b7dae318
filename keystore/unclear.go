package keystore

import "time"

// Unclear marks an error as [ErrUnclear], and leaves its text as it is.
func Unclear(err error) error { return unclear{err} }

type unclear struct{ error }

func (u unclear) Unwrap() []error { return []error{u.error, ErrUnclear} }

const (
	firstPINPause   = 250 * time.Millisecond
	longestPINPause = time.Minute
)

// PINPause is how long to wait before a device is given a PIN again that it was given some number
// of times in a row, each with [ErrUnclear]: eight times in the first minute, and then once a
// minute, since many devices lock a PIN after ten wrong ones. A device that was only away is used
// again after at most twice the time.
func PINPause(times int) time.Duration {
	if times <= 0 {
		return 0
	}
	return min(firstPINPause<<min(times-1, 10), longestPINPause)
}
