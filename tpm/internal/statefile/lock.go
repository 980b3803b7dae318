package statefile

import (
	"context"
	"errors"
	"time"
)

// ErrLocked: another process has kept the lock for too long.
var ErrLocked = errors.New("is being changed by another process: try again")

// patience is how long to wait for another process, which only has to write a file.
const patience = 10 * time.Second

// Take locks the file with that name, which it makes, until end is called or the process ends. It
// calls waits once if another process has it.
func Take(ctx context.Context, name string, waits func()) (end func(), err error) {
	return take(ctx, name, waits)
}

// Change calls fn, which reads a file again and replaces it, while no other process does so: it
// locks the directory of the file. Without the lock, two processes could find the file unchanged
// at the same time, and the change of one of them would be lost. Where directories cannot be
// locked, fn is called all the same.
func Change(path string, fn func() error) error {
	unlock, err := lock(path, patience)
	if err != nil {
		return err
	}
	defer unlock()
	return fn()
}
