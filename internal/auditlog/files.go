package auditlog

import (
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// resume opens the file and finds where the log continues.
func (l *Log) resume() (err error) {
	if l.file, err = openFile(l.c.Path); err != nil {
		return err
	}
	e, err := readEnd(l.file)
	if err == nil && e.torn > 0 && e.log == "" { // a crash left a part of the first line
		err = l.file.Truncate(0)
	}
	if err == nil && e.log == "" {
		err = l.begin()
	} else if err == nil {
		err = l.goOn(e)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", l.c.Path, err), l.file.Close())
	}
	return nil
}

// Examine reports whether [Open] would continue a log that was changed, and the error with which
// it would refuse the file. It writes nothing, and another process may write the log.
func Examine(path string) (changed bool, err error) {
	e, err := examine(path)
	if err == nil && e.log == "" { // the log continues an earlier file, if there is one
		var before string
		if before, err = earlier(path); err == nil && before != "" {
			e, err = examine(before)
		}
	}
	return e.damaged, err
}

// examine reads to the end of a file. One that does not exist is as good as an empty one.
func examine(path string) (e end, err error) {
	if err := regular(path); err != nil {
		return e, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	defer f.Close()
	if e, err = readEnd(f); err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// regular refuses what is at a path and not a file.
func regular(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	return nil
}

// openFile opens a file that no other process writes. It is append-only.
func openFile(path string) (*os.File, error) {
	if err := regular(path); err != nil {
		return nil, err
	}
	for {
		f, err := atomicfile.Open(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
		if isAt(f, path) {
			return f, nil
		}
		f.Close() // another process has put it aside in the meantime
	}
}

// isAt reports whether a file is the one at a path.
func isAt(f *os.File, path string) bool {
	own, errOwn := f.Stat()
	there, err := os.Stat(path)
	return errOwn == nil && err == nil && os.SameFile(own, there)
}

// begin writes to an empty file: it continues the newest file that was put aside, or
// starts a log.
func (l *Log) begin() error {
	e, err := endOfEarlier(l.c.Path)
	if err != nil {
		return err
	}
	if l.name, l.last, l.unsigned = e.log, e.last, int(e.unsigned); l.name == "" {
		var id [16]byte
		rand.Read(id[:])
		l.name = hex.EncodeToString(id[:])
	}
	l.addHeader(e.torn)
	return errors.Join(l.flush(), atomicfile.SyncDir(filepath.Dir(l.c.Path)))
}

// endOfEarlier reads the newest file that was put aside from a path, if there is one.
func endOfEarlier(path string) (e end, err error) {
	name, err := earlier(path)
	if name == "" {
		return e, err
	}
	f, err := os.Open(name)
	if err != nil {
		return e, err
	}
	defer f.Close()
	if err = lock(f); err == nil { // a process that is just putting it aside goes on in it
		e, err = readEnd(f)
	}
	if err != nil {
		return e, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// goOn continues after the last record of the file.
func (l *Log) goOn(e end) error {
	l.name, l.last, l.size, l.unsigned = e.log, e.last, e.size, int(e.unsigned)
	if e.damaged {
		l.c.Log.Error("the audit log was changed: examine it with msl-hsm audit verify, and keep it", "file", l.c.Path)
	}
	if e.torn > 0 {
		l.c.Log.Warn("the audit log ends with an incomplete record, as after a crash: a new file begins", "file", l.c.Path, "bytes", e.torn)
		return l.rotate(e.torn)
	}
	return nil
}

// addHeader starts a file.
func (l *Log) addHeader(torn int64) {
	before := l.last.Chain
	l.size = 0
	l.add(line{Record: Record{Event: eventFile}, ownFields: ownFields{Log: l.name, Previous: chainText(before), Torn: torn}})
}

// rotateIfFull starts another file if this one is full and completely written.
func (l *Log) rotateIfFull() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > l.c.Size && l.failed == nil {
		l.noteFailure(l.rotate(0))
	}
}

// rotate puts the file aside, under the number of its last record, and starts another
// one.
func (l *Log) rotate(torn int64) error {
	if err := l.flush(); err != nil {
		return err
	}
	if isAt(l.file, l.c.Path) {
		aside := fmt.Sprintf("%s.%012d", l.c.Path, l.last.N)
		if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s already exists", aside)
		}
		if err := os.Rename(l.c.Path, aside); err != nil {
			return err
		}
	}
	return l.another(torn)
}

// another starts a file. The previous one must be completely written.
func (l *Log) another(torn int64) error {
	f, err := openFile(l.c.Path)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		return errors.Join(fmt.Errorf("%s has been written by another process", l.c.Path), err, f.Close())
	}
	old := l.file
	l.file = f
	l.addHeader(torn)
	l.c.Log.Info("the audit log continues in a new file", "file", l.c.Path, "after", l.last.N-1)
	return errors.Join(old.Sync(), old.Close(), l.flush(), atomicfile.SyncDir(filepath.Dir(l.c.Path)))
}

// put writes what is pending, and starts another file if this one was removed. Nothing else
// would tell that, and all further records would be lost.
func (l *Log) put() error {
	if err := l.flush(); err != nil || !removed(l.file) {
		return err
	}
	if l.gone != l.file {
		l.gone = l.file
		l.c.Log.Error("the audit log was removed while it was open: find out by whom; msl-hsm audit verify shows which records are missing", "file", l.c.Path)
	}
	return l.another(0)
}

// reopen starts another file if this one was moved away.
func (l *Log) reopen(signer crypto.Signer) error {
	l.checkpoint()
	l.mu.Lock()
	defer l.mu.Unlock()
	if signer != nil {
		if err := l.use(signer); err != nil {
			return err
		}
	}
	if isAt(l.file, l.c.Path) {
		return nil
	}
	if err := l.flush(); err != nil {
		return err
	}
	return l.another(0)
}
