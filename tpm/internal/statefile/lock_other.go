//go:build !unix

package statefile

import (
	"context"
	"time"
)

// lock does nothing: on this platform only one process at a time must change a file.
func lock(string, time.Duration) (unlock func(), err error) { return func() {}, nil }

func take(context.Context, string, func()) (end func(), err error) { return func() {}, nil }
