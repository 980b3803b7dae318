package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// An opened server remembers the path of its file.
type opened struct {
	*Server
	path string
}

func openServer(t testing.TB, path string) opened {
	t.Helper()
	s, err := OpenServer(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return opened{s, path}
}

func newServer(t testing.TB) opened {
	t.Helper()
	return openServer(t, filepath.Join(t.TempDir(), "state"))
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func pskEntity(identity string) state.EntityRecord {
	return state.EntityRecord{
		Identity: identity,
		Scheme:   "PSK",
		PSK:      &msl.SealedPSK{Encryption: []byte{1}, MAC: []byte{2}, Wrapping: []byte{3}},
	}
}

// raw writes records as they are in the store.
func (o opened) raw(t testing.TB, table string, records map[string][]byte) {
	t.Helper()
	err := o.db.Update(t.Context(), func(tx kv.Tx) (err error) {
		for key, value := range records {
			err = errors.Join(err, tx.Put(table, []byte(key), value))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addUser registers a user with a password that is cheap to hash.
func (o opened) addUser(t testing.TB, name string) {
	t.Helper()
	o.raw(t, "users", map[string][]byte{name: fmt.Appendf(nil,
		`{"argon2id":{"time":1,"memory":64,"threads":1},"salt":"%s==","hash":"%s=","created":"2024-05-06T07:08:09Z"}`,
		strings.Repeat("A", 22), strings.Repeat("A", 43))})
}

// oldIDs returns records of many tokens whose ids were used long ago.
func oldIDs(name string, many int) map[string][]byte {
	all := map[string][]byte{}
	for i := range many {
		key := binary.BigEndian.AppendUint16(nil, uint16(len(name)))
		key = binary.BigEndian.AppendUint64(append(key, name...), uint64(i))
		all[string(key)] = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), 1)
	}
	return all
}

func TestFileMode(t *testing.T) {
	s := newServer(t)
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestSecondProcess(t *testing.T) {
	s := newServer(t)
	_, err := OpenServer(s.path)
	wantErr(t, err, ErrInUse)
	if err == nil || !strings.Contains(err.Error(), "another server or command") {
		t.Errorf("error %v", err)
	}
	if err := s.AcceptID(t.Context(), "a", 1, 1); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "client")
	c, err := OpenClient(client, "default")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a state file\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "state"): "make it, with mode 0700",
		dir:                                 "name a file",
		open:                                "chmod 600",
		client:                              "name another file",
		text:                                "backup",
	} {
		s, err := OpenServer(path)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "bolt: ") {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

func TestClosed(t *testing.T) {
	s := newServer(t)
	s.Close()
	ctx := context.Background()
	if s.Revoked(ctx, "a", "") == nil || s.AcceptID(ctx, "a", 1, 1) == nil || s.AddEntity(pskEntity("a")) == nil {
		t.Error("a closed state answers")
	}
}

// TestRefusedSteps has messages and renewals come again, many at once: all are refused, and none
// writes to the file.
func TestRefusedSteps(t *testing.T) {
	s, err := guarded(&kvtest.Mark{}, authkv.Adopt).Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Renew(t.Context(), "a", 1, 5)
	if err := errors.Join(err, s.AcceptID(t.Context(), "a", 1, 7)); err != nil {
		t.Fatal(err)
	}
	var before, after bytes.Buffer
	if err := s.Snapshot(&before); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			wantErr(t, s.AcceptID(t.Context(), "a", 1, 7), msl.ErrMessageReplayed)
			_, err := s.Renew(t.Context(), "a", 1, 1)
			wantErr(t, err, msl.ErrMasterTokenSequenceNumberOutOfSync)
		})
	}
	wait.Wait()
	if err := s.Snapshot(&after); err != nil || !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Errorf("the file has changed: %v", err)
	}
}
