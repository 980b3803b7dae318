package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// VerifyServer checks a file that no server uses, such as a backup, without changing it.
// It looks for damage; it does not check the authentication or the mode of the file.
func VerifyServer(path string) (sum state.Summary, err error) {
	err = onCopy(path, func(copied string) (err error) {
		sum, err = verify(copied, path)
		return err
	})
	return sum, err
}

// onCopy calls fn with a copy of the file at path.
func onCopy(path string, fn func(copied string) error) error {
	return reading(path, func(from io.Reader) error { return serverLayout().OnCopy(from, fn) })
}

// reading calls fn with the content of the file at path, if that begins like a state.
func reading(path string, fn func(from io.Reader) error) error {
	f, err := plainfile.Open(path)
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	defer f.Close()
	from, err := boltkv.Begin(f)
	switch {
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("bolt: %s is not a valid copy: %w", path, err)
	case err != nil:
		return fmt.Errorf("bolt: %w", err)
	}
	return fn(from)
}

// verify checks a copy of the file called name.
func verify(copied, name string) (sum state.Summary, err error) {
	s, err := openCopy(copied, name)
	if err != nil {
		return sum, err
	}
	sum, err = s.Summary()
	return sum, errors.Join(err, s.Close())
}

// openCopy opens a copy of the file called name.
func openCopy(copied, name string) (*Server, error) {
	s, err := unguarded(copied)
	switch {
	case errors.Is(err, ErrEmpty):
		return nil, fmt.Errorf("bolt: %s: %w", name, ErrEmpty)
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrFormat):
		return nil, fmt.Errorf("bolt: %s is not a valid copy: %w", name, inner(err, copied))
	}
	return s, err
}

// unguarded opens a file to read or copy it without authenticating it.
func unguarded(path string) (*Server, error) {
	db, err := boltkv.Open(path, serverLayout(), boltkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	s, err := state.NewServer(db)
	if err != nil {
		return nil, errors.Join(serverLayout().Explain(path, err), db.Close())
	}
	return &Server{Server: s, db: db, store: db}, nil
}

// inner returns the cause of an error from opening a copy, without the name of the copy.
func inner(err error, copied string) error {
	for strings.Contains(err.Error(), copied) {
		wrapped := errors.Unwrap(err)
		if wrapped == nil {
			return err
		}
		err = wrapped
	}
	return err
}

// A Restored describes what [RestoreServer] did.
type Restored struct {
	Aside string    // where the previous file is now; empty if there was none
	Ended time.Time // tokens issued until then are invalid; zero if they were kept
	state.Summary
}

// RestoreServer replaces the state file at path with a backup. If a process has the file
// open, it returns [ErrInUse]. The backup is copied and verified first. The previous file
// is kept beside it. Since the backup does not know what was accepted, renewed and
// revoked after it was made, every token issued so far becomes invalid, unless keepTokens
// is true. If by the clock it was used in the future, the error is [state.ErrClockBehind].
// Attached content is left out: see [Attached].
func RestoreServer(backup, path string, keepTokens bool) (r Restored, err error) {
	return Files{}.Restore(backup, path, keepTokens)
}

// Restore is [RestoreServer] with authentication. The backup must be as authentic as the
// file that it becomes.
func (f Files) Restore(backup, path string, keepTokens bool) (r Restored, err error) {
	err = reading(backup, func(from io.Reader) (err error) {
		r.Aside, err = serverLayout().Restore(from, path, func(copied string) (err error) {
			if r.Summary, err = verify(copied, backup); err != nil {
				return err
			}
			r.Ended, err = f.prepare(copied, backup, keepTokens)
			return err
		})
		return err
	})
	return r, err
}

// prepare turns a copy of a backup with that name into a state. It returns until when tokens were
// issued that it ended.
func (f Files) prepare(copied, name string, keepTokens bool) (ended time.Time, err error) {
	s, err := f.open(copied, name, boltkv.OpenExisting)
	if err != nil {
		return ended, err
	}
	err = s.detach()
	if err == nil && !keepTokens {
		ended = time.Now()
		if err = state.UsedUntil(context.Background(), s.Server, ended); err == nil {
			err = state.EndTokens(s.store, ended)
		}
	}
	return ended, errors.Join(err, s.Close())
}

// WriteServer writes a state, wherever it is kept, to a new file at path, and verifies the
// file. If it already exists, the error is [ErrExists]; if writing fails, the file is
// removed. progress is as in state.Server.CopyTo.
func WriteServer(ctx context.Context, path string, from *state.Server, progress func(records int)) (sum state.Summary, err error) {
	return Files{}.Write(ctx, path, from, progress)
}

// Write is [WriteServer] for an authenticated file.
func (f Files) Write(ctx context.Context, path string, from *state.Server, progress func(records int)) (sum state.Summary, err error) {
	db, err := boltkv.Open(path, serverLayout(), boltkv.CreateNew)
	if err != nil {
		return sum, err
	}
	copied, err := from.CopyTo(ctx, db, progress)
	if err == nil {
		err = copyPair(ctx, copied, from)
	}
	if err == nil {
		err = copied.Finish(ctx)
	}
	if err == nil {
		f.Guard.Trust = authkv.Vouch
		err = f.guard(&Server{db: db})
	}
	if err = errors.Join(err, db.Close()); err == nil {
		sum, err = VerifyServer(path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return sum, err
}

// CompactServer rewrites the file at path without the space of removed records, and
// returns its sizes in bytes. If a process has the file open, it returns [ErrInUse].
func CompactServer(path string) (before, after int64, err error) {
	return serverLayout().Compact(path, func(copied string) error {
		_, err := verify(copied, path)
		return err
	})
}
