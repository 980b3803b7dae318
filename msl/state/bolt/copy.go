package bolt

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl/state"
)

// VerifyServer checks a file that no server uses, such as a backup, without
// changing it. Its mode is not asked.
func VerifyServer(path string) (sum state.Summary, err error) {
	err = onCopy(path, func(copied string) (err error) {
		sum, err = verify(copied, path)
		return err
	})
	return sum, err
}

// onCopy calls fn with a copy of the file at path.
func onCopy(path string, fn func(copied string) error) error {
	from, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	defer from.Close()
	return serverLayout().OnCopy(from, fn)
}

// verify checks a copy of the file called name.
func verify(copied, name string) (sum state.Summary, err error) {
	s, err := ReopenServer(copied)
	switch {
	case errors.Is(err, ErrEmpty):
		return sum, fmt.Errorf("bolt: %s: %w", name, ErrEmpty)
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrFormat):
		return sum, fmt.Errorf("bolt: %s is not a valid copy: %w", name, inner(err, copied))
	case err != nil:
		return sum, err
	}
	sum, err = s.Summary()
	return sum, errors.Join(err, s.Close())
}

// inner is what an error of opening a copy is about, without the name of the copy.
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

// A Restored tells what [RestoreServer] did.
type Restored struct {
	Aside string // where the file is that was there; empty if none was
	state.Summary
}

// RestoreServer puts a backup in the place of the state file at path, which no
// process may have open: [ErrInUse]. The backup is copied and verified first. What
// was at path is kept beside it. Since the backup does not know what was accepted,
// renewed and revoked after it was made, every token issued until now ends, unless
// keepTokens says that they are to go on. What is attached is left out: see
// [Attached].
func RestoreServer(backup, path string, keepTokens bool) (r Restored, err error) {
	from, err := os.Open(backup)
	if err != nil {
		return r, fmt.Errorf("bolt: %w", err)
	}
	defer from.Close()
	r.Aside, err = serverLayout().Restore(from, path, func(copied string) (err error) {
		if r.Summary, err = verify(copied, backup); err != nil {
			return err
		}
		return prepare(copied, keepTokens)
	})
	return r, err
}

// prepare makes a state of a copy of a backup.
func prepare(copied string, keepTokens bool) error {
	s, err := ReopenServer(copied)
	if err != nil {
		return err
	}
	err = s.detach()
	if err == nil && !keepTokens {
		err = state.EndTokens(s.db)
	}
	return errors.Join(err, s.Close())
}

// CompactServer writes the file at path anew without the room that removed records
// left, and returns its sizes in bytes. No process may have it open: [ErrInUse].
func CompactServer(path string) (before, after int64, err error) {
	return serverLayout().Compact(path, func(copied string) error {
		_, err := verify(copied, path)
		return err
	})
}
