package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/state"
)

// sample makes a file with every kind of page and record, and returns it.
func sample(t testing.TB) []byte {
	t.Helper()
	s := newServer(t)
	var err error
	for i := range 12 { // every step a transaction, so that pages become free
		err = errors.Join(err, s.AddEntity(pskEntity(fmt.Sprint("device ", i))))
	}
	s.addUser(t, "ann")
	s.raw(t, "ids", oldIDs("device", 200)) // more than one page
	_, renewErr := s.Renew(t.Context(), "device 3", 1, 1)
	err = errors.Join(err, renewErr, s.RevokeEntity("device 1"), s.RemoveEntity("device 2"), s.RevokeUser("bob"), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// use opens a file and reads all of it.
func use(path string) ([]state.EntityRecord, error) {
	s, err := OpenServer(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	_, usersErr := s.Users()
	_, pruneErr := s.Prune(time.Unix(0, 0))
	list, err := s.Entities()
	return list, errors.Join(err, usersErr, pruneErr)
}

// TestFlippedBytes changes bytes all over the file: either the file is refused, or the
// byte did not matter. Nothing crashes.
func TestFlippedBytes(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	const want = 12 // one of them removed, but its mark is listed
	stride := 41
	if testing.Short() {
		stride = 997
	}
	refused := 0
	for at := 0; at < len(good); at += stride {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := use(path)
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d: %v", at, err)
			}
		} else if len(list) != want {
			t.Errorf("byte %d: %d entities", at, len(list))
		}
	}
	if refused == 0 {
		t.Error("every change was overlooked")
	}
	t.Logf("%d bytes, %d changes refused", len(good), refused)
}

// TestTruncated truncates the file.
func TestTruncated(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	for size := 1; size < len(good); size += 509 {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := use(path)
		if err == nil && len(list) != 12 {
			t.Errorf("%d bytes: %d entities", size, len(list))
		}
		if err != nil && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "backup")) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestRefusedFileIsFree checks that a refused file is not left locked.
func TestRefusedFileIsFree(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	for _, b := range [][]byte{good[:len(good)/2], good} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := use(path); errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
}
