package msl

import (
	"context"
	"time"
)

// The waits between tries while a failure may be temporary: first 20 ms, then doubling,
// for three seconds in total.
const (
	firstWait = 20 * time.Millisecond
	patience  = 3 * time.Second
)

// persist does work that should succeed if at all possible, such as protecting the answer
// to a request on which the application has already acted. It retries while a device
// fails in a possibly temporary way, until ctx ends or the time is up. With a nil ctx it
// tries once.
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
