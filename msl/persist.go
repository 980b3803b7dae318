package msl

import (
	"context"
	"time"
)

// How a failure that may pass is waited for: 20 ms at first, then twice as long
// each time, and no more once three seconds have gone by.
const (
	firstWait = 20 * time.Millisecond
	patience  = 3 * time.Second
)

// persist does what must not be given up lightly, such as the protection of an
// answer that the application has already acted for. It tries again while a
// device fails in a way that may pass, until ctx ends or the patience does. A nil
// ctx has none.
func persist(ctx context.Context, do func() error) error {
	err := do()
	if err == nil || ctx == nil {
		return err
	}
	start := time.Now()
	for wait := firstWait; passing(err) && time.Since(start)+wait < patience; wait *= 2 {
		select {
		case <-time.After(wait):
			err = do()
		case <-ctx.Done():
			return err
		}
	}
	return err
}
