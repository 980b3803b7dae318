package msl

import (
	"context"
	"time"
)

// The waits between tries while a failure may be temporary: 20 ms at first, then twice
// as long each time, until three seconds have passed.
const (
	firstWait = 20 * time.Millisecond
	patience  = 3 * time.Second
)

// persist does work that should succeed if at all possible, such as protecting the
// answer to a request on which the application has already acted. It tries again while
// a device fails in a way that may be temporary, until ctx ends or the time is up. With
// a nil ctx it tries once.
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
