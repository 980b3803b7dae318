package bolt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// Snapshot writes the state of this moment to w, as a file that can be opened. It
// does not keep others from writing.
func (s *Server) Snapshot(w io.Writer) error {
	return s.view("copy the state", func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
}

// Check reads everything and returns what there is: the pages of the file, in a
// copy that it makes and removes in the same directory, and every record.
func (s *Server) Check() (Summary, error) {
	sum, err := s.Summary()
	if err != nil {
		return sum, err
	}
	copied, err := newBeside(s.path, "check")
	if err != nil {
		return sum, wrap("check", err)
	}
	defer copied.discard()
	if err := s.Snapshot(copied); err != nil {
		return sum, err
	}
	if sum.Free, err = serverFile().freeIn(copied.Name()); err != nil {
		return sum, serverFile().explain(s.path, err)
	}
	return sum, nil
}

// VerifyServer checks a file that no server uses, such as a backup, without
// changing it. Its mode is not asked.
func VerifyServer(path string) (Summary, error) {
	from, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("bolt: %w", err)
	}
	defer from.Close()
	copied, err := os.CreateTemp("", "msl-hsm-verify-*")
	if err != nil {
		return Summary{}, fmt.Errorf("bolt: %w", err)
	}
	defer beside{copied}.discard()
	if _, err := io.Copy(copied, from); err != nil {
		return Summary{}, fmt.Errorf("bolt: read %s: %w", path, err)
	}
	return verify(copied.Name(), path)
}

// verify checks a copy of the file called name.
func verify(copied, name string) (sum Summary, err error) {
	s, err := ReopenServer(copied)
	switch {
	case errors.Is(err, ErrEmpty):
		return sum, fmt.Errorf("bolt: %s: %w", name, ErrEmpty)
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrFormat):
		return sum, fmt.Errorf("bolt: %s is not a valid copy: %w", name, inner(err))
	case err != nil:
		return sum, err
	}
	sum, err = s.Summary()
	return sum, errors.Join(err, s.Close())
}

// inner is what an error of opening a copy is about, without the copy's name.
func inner(err error) error {
	if wrapped := errors.Unwrap(err); wrapped != nil {
		return wrapped
	}
	return err
}

// A Restored tells what [RestoreServer] did.
type Restored struct {
	Aside string // where the file is that was there; empty if none was
	Summary
}

// RestoreServer puts a backup in the place of the state file at path, which no
// process may have open: [ErrInUse]. The backup is copied and verified first. What
// was at path is kept beside it. Since the backup does not know what was accepted,
// renewed and revoked after it was made, every token issued until now ends, unless
// keepTokens says that they are to go on. What is attached is left out: see
// [Attached].
func RestoreServer(backup, path string, keepTokens bool) (r Restored, err error) {
	if path, err = settled(path); err != nil {
		return r, err
	}
	copied, err := copyBeside(backup, path)
	if err != nil {
		return r, err
	}
	defer copied.discard()
	if r.Summary, err = verify(copied.Name(), backup); err != nil {
		return r, err
	}
	if err := detach(copied.Name()); err != nil {
		return r, err
	}
	if !keepTokens {
		if err := beginAnew(copied.Name()); err != nil {
			return r, err
		}
	}
	r.Aside, err = replace(path, copied)
	return r, err
}

// beginAnew lets no token count in the file that was issued so far.
func beginAnew(path string) error {
	s, err := ReopenServer(path)
	if err != nil {
		return err
	}
	began := secondAfter(time.Now())
	err = s.update("end all tokens", func(tx *bbolt.Tx) error {
		return putSetting(tx, keysBegan, encodeInts(seconds(began)))
	})
	if err == nil {
		time.Sleep(min(time.Second, time.Until(began)))
	}
	return errors.Join(err, s.Close())
}

// replace gives a file the place of the one at path, of which it keeps hold so
// that nobody opens it meanwhile. There is a file at path at any time.
func replace(path string, copied beside) (aside string, err error) {
	old, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", copied.become(path)
	}
	if err != nil {
		return "", fmt.Errorf("bolt: %w", err)
	}
	defer old.Close()
	if err := lock(old); err != nil {
		return "", serverFile().explain(path, err)
	}
	if aside, err = atomicfile.Aside(path, ".before-restore"); err != nil {
		return "", fmt.Errorf("bolt: keep the old file: %w", err)
	}
	return aside, copied.become(path)
}

// CompactServer writes the file at path anew without the room that removed records
// left, and returns its sizes in bytes. No process may have it open: [ErrInUse].
func CompactServer(path string) (before, after int64, err error) {
	if path, err = settled(path); err != nil {
		return 0, 0, err
	}
	s, err := ReopenServer(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	copied, err := newBeside(path, "compact")
	if err != nil {
		return 0, 0, err
	}
	defer copied.discard()
	if err := compactInto(copied.Name(), s.db); err != nil {
		return 0, 0, wrap("compact", err)
	}
	if _, err := verify(copied.Name(), path); err != nil {
		return 0, 0, err
	}
	before, errBefore := sizeOf(path)
	after, errAfter := sizeOf(copied.Name())
	if err := errors.Join(errBefore, errAfter); err != nil {
		return 0, 0, err
	}
	return before, after, copied.become(path)
}

func compactInto(path string, from *bbolt.DB) error {
	const bytesAtATime = 1 << 20
	to, err := bbolt.Open(path, fileMode, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		return err
	}
	err = guard(func() error { return bbolt.Compact(to, from, bytesAtATime) })
	return errors.Join(err, to.Close())
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// settled follows links: what takes the place of a file must not take that of a
// link to it.
func settled(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", fmt.Errorf("bolt: %w", err)
	}
	return real, nil
}

// beside is a file in the making, of mode 0600, in the directory of the one that
// it may become.
type beside struct{ *os.File }

func newBeside(path, what string) (beside, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"."+what+"-*")
	if err != nil {
		return beside{}, fmt.Errorf("bolt: %w", err)
	}
	return beside{f}, nil
}

func copyBeside(from, path string) (beside, error) {
	source, err := os.Open(from)
	if err != nil {
		return beside{}, fmt.Errorf("bolt: %w", err)
	}
	defer source.Close()
	to, err := newBeside(path, "restore")
	if err != nil {
		return to, err
	}
	if _, err := io.Copy(to, source); err != nil {
		to.discard()
		return to, fmt.Errorf("bolt: copy %s: %w", from, err)
	}
	return to, nil
}

// become gives the file its name when its bytes are on the disk.
func (b beside) become(path string) error {
	if err := b.Sync(); err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	if err := os.Rename(b.Name(), path); err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// discard removes the file, unless it became another.
func (b beside) discard() {
	b.Close()
	os.Remove(b.Name())
}
