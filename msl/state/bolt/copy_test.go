package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// TestOpenings opens files that exist, that do not, and that are not state files.
func TestOpenings(t *testing.T) {
	for name, c := range map[string]struct {
		prepare                func(path string) error
		open, reopened, create error
	}{
		"nothing": {prepare: func(string) error { return nil }, reopened: fs.ErrNotExist},
		"empty":   {prepare: func(path string) error { return os.WriteFile(path, nil, 0o600) }, open: ErrEmpty, reopened: ErrEmpty, create: ErrExists},
		"no records": {prepare: func(path string) error { // as left by a process that was killed while creating it
			db, err := bbolt.Open(path, 0o600, nil)
			return errors.Join(err, db.Close())
		}, open: ErrEmpty, reopened: ErrEmpty, create: ErrExists},
		"a state": {prepare: func(path string) error {
			s, err := CreateServer(path)
			return errors.Join(err, s.Close())
		}, create: ErrExists},
		"no directory": {prepare: os.Remove, open: fs.ErrNotExist, reopened: fs.ErrNotExist, create: fs.ErrNotExist},
	} {
		for how, open := range map[string]func(string) (*Server, error){"open": OpenServer, "reopen": ReopenServer, "create": CreateServer} {
			path := filepath.Join(t.TempDir(), "state")
			want := map[string]error{"open": c.open, "reopen": c.reopened, "create": c.create}[how]
			if name == "no directory" {
				path = filepath.Join(path, "state")
			} else if err := c.prepare(path); err != nil {
				t.Fatal(err)
			}
			_, before := os.Stat(path)
			s, err := open(path)
			if s != nil {
				s.Close()
			}
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %s: %v, want %v", name, how, err, want)
			}
			if _, after := os.Stat(path); want != nil && (before == nil) != (after == nil) {
				t.Errorf("%s: %s made or removed the file", name, how)
			}
		}
	}
}

// filled returns a state with an entity, a user and a session for each of several
// devices.
func filled(t *testing.T) opened {
	t.Helper()
	s := newServer(t)
	s.addUser(t, "ann")
	wantErr(t, first(s.AddEntity(pskEntity("device")), s.RevokeEntity("bad"), s.RevokeUser("eve")), nil)
	for i := range int64(50) {
		session(t, s, "device", i, time.Now().Add(day))
	}
	return s
}

func TestSummary(t *testing.T) {
	s := filled(t)
	sum, err := s.Check()
	if err != nil || sum.Free == 0 || sum.Bytes < 32<<10 || time.Since(sum.Latest) > time.Minute {
		t.Errorf("%+v, %v", sum, err)
	}
	sum.Free, sum.Bytes, sum.Latest = 0, 0, time.Time{}
	want := state.Summary{Entities: 1, EntitiesRevoked: 1, Users: 1, UsersRevoked: 1, IDs: 50, Sequences: 50}
	if sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
	if left, _ := filepath.Glob(s.path + ".*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestSnapshotOfLiveState copies a state while it changes.
func TestSnapshotOfLiveState(t *testing.T) {
	s := filled(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := int64(1000); ; i++ {
			select {
			case <-stop:
				return
			default:
				session(t, s, fmt.Sprint("device ", i%7), i, time.Now().Add(day))
			}
		}
	}()
	for range 20 {
		f, err := os.CreateTemp(t.TempDir(), "copy")
		wantErr(t, err, nil)
		wantErr(t, first(s.Snapshot(f), f.Close()), nil)
		sum, err := VerifyServer(f.Name())
		if err != nil || sum.Entities != 1 || sum.IDs < 50 || sum.IDs < sum.Sequences || sum.IDs > sum.Sequences+1 {
			t.Errorf("%+v, %v", sum, err)
		}
	}
	close(stop)
	<-done
}

// TestRestore goes back in time.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, keep := range []bool{false, true} {
			s := filled(t)
			backup := filepath.Join(t.TempDir(), "backup")
			f, err := os.OpenFile(backup, os.O_CREATE|os.O_WRONLY, 0o644)
			wantErr(t, err, nil)
			wantErr(t, first(s.Snapshot(f), f.Close()), nil)
			time.Sleep(time.Hour)
			issued := time.Now()
			wantErr(t, first(s.RevokeEntity("device"), s.AcceptID(t.Context(), "device", 1, 2)), nil)
			_, err = RestoreServer(backup, s.path, keep)
			wantErr(t, err, ErrInUse)
			wantErr(t, s.Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
			wantErr(t, s.Close(), nil)
			for _, aside := range []string{s.path + ".before-restore", s.path + ".before-restore-2"} {
				r, err := RestoreServer(backup, s.path, keep)
				if err != nil || r.Aside != aside || r.Entities != 1 || r.IDs != 50 {
					t.Errorf("%+v, %v", r, err)
				}
			}
			s = openServer(t, s.path)
			wantErr(t, s.Revoked(t.Context(), "device", ""), nil)
			if e, u := counts(t, s, "device", "ann", issued); e != keep || u != keep {
				t.Errorf("tokens of before count: %v, %v, want %v", e, u, keep)
			}
			if e, u := counts(t, s, "device", "ann", time.Now()); !e || !u {
				t.Error("tokens of now do not count")
			}
			s.Close()
			old := openServer(t, s.path+".before-restore")
			wantErr(t, old.Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
			old.Close()
			if left, _ := filepath.Glob(s.path + ".restore*"); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		}
	})
}

// TestRestoreOverWhat restores where there is nothing, damage, or a link.
func TestRestoreOverWhat(t *testing.T) {
	s := filled(t)
	s.Close()
	for name, prepare := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 9000)), 0o600) },
		"a link": func(path string) error {
			return errors.Join(os.WriteFile(path+".real", nil, 0o600), os.Symlink("state.real", path))
		},
	} {
		path := filepath.Join(t.TempDir(), "state")
		wantErr(t, prepare(path), nil)
		r, err := RestoreServer(s.path, path, true)
		if err != nil || (r.Aside == "") != (name == "nothing") {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		if sum := summary(t, openServer(t, path)); sum.IDs != 50 {
			t.Errorf("%s: %+v", name, sum)
		}
		if info, err := os.Lstat(path); err != nil || (info.Mode()&fs.ModeSymlink != 0) != (name == "a link") {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestRestoreRefuses leaves the state unchanged if the backup is invalid.
func TestRestoreRefuses(t *testing.T) {
	s := filled(t)
	s.Close()
	good, err := os.ReadFile(s.path)
	wantErr(t, err, nil)
	for size := range len(good) {
		if size%8209 != 0 {
			continue
		}
		backup := filepath.Join(t.TempDir(), "backup")
		wantErr(t, os.WriteFile(backup, good[:size], 0o600), nil)
		r, err := RestoreServer(backup, s.path, true)
		now, errNow := os.ReadFile(s.path)
		switch {
		case err == nil && r.IDs != 50: // only free pages were cut off
			t.Errorf("%d bytes are restored: %+v", size, r)
		case err != nil && (errNow != nil || string(now) != string(good)):
			t.Fatalf("%d bytes: the state was changed: %v", size, errNow)
		case err != nil && strings.Contains(err.Error(), ".restore-"):
			t.Errorf("%d bytes: the error is about the copy: %v", size, err)
		case err == nil:
			wantErr(t, os.WriteFile(s.path, good, 0o600), nil)
		}
	}
}

func TestCompact(t *testing.T) {
	s := filled(t)
	s.raw(t, "ids", oldIDs("old", 5000))
	if n, err := s.Prune(time.Unix(2, 0)); n != 5000 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	_, _, err := CompactServer(s.path)
	wantErr(t, err, ErrInUse)
	s.Close()
	before, after, err := CompactServer(s.path)
	if err != nil || after >= before/2 {
		t.Errorf("%d bytes became %d, %v", before, after, err)
	}
	info, err := os.Stat(s.path)
	if err != nil || info.Size() != after || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	s = openServer(t, s.path)
	if sum := summary(t, s); sum.IDs != 50 || sum.Entities != 1 {
		t.Errorf("%+v", sum)
	}
	wantErr(t, s.AcceptID(t.Context(), "device", 1, 1), msl.ErrMessageReplayed)
	err = s.db.View(t.Context(), func(tx kv.Reader) error {
		keep, err := tx.Get(kv.Settings, []byte("keep"))
		if len(keep) == 0 {
			t.Error("it was forgotten for how long records are kept")
		}
		return err
	})
	wantErr(t, err, nil)
}

// TestMovedAway opens a file that is replaced during the wait for the lock: the locked
// file is then no longer the one at that path.
func TestMovedAway(t *testing.T) {
	s := filled(t)
	opened := make(chan error)
	go func() {
		other, err := OpenServer(s.path)
		if err == nil {
			other.Close()
		}
		opened <- err
	}()
	time.Sleep(100 * time.Millisecond)
	wantErr(t, os.Rename(s.path, s.path+".aside"), nil)
	wantErr(t, os.WriteFile(s.path, nil, 0o600), nil)
	s.Close()
	wantErr(t, <-opened, ErrInUse)
}

// counts reports whether tokens issued in the second of t are valid, for the entity and
// for the user.
func counts(t *testing.T, s opened, identity, user string, at time.Time) (entity, ofUser bool) {
	t.Helper()
	e, u, err := s.CountSince(t.Context(), identity, user)
	if err != nil {
		t.Fatal(err)
	}
	issued := at.Truncate(time.Second)
	return !issued.Before(e), !issued.Before(u)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// summary counts what is in a state.
func summary(t *testing.T, s opened) state.Summary {
	t.Helper()
	sum, err := s.Summary()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// session records what a server records for a token that lives until then.
func session(t *testing.T, s opened, identity string, serial int64, until time.Time) {
	t.Helper()
	err := first(s.Expect(t.Context(), until), s.AcceptID(t.Context(), identity, serial, 1))
	if err == nil {
		_, err = s.Renew(t.Context(), identity, serial, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const day = 24 * time.Hour

// TestUnfinished opens what is left of a copy whose process was killed: it is not called forged,
// and nobody signs it.
func TestUnfinished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	db, err := boltkv.Open(path, serverLayout(), boltkv.CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kv.BeginCopy(t.Context(), db, state.ServerTables())
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, trust := range []authkv.Trust{authkv.Judge, authkv.Adopt, authkv.Vouch} {
		if s, err := guarded(&kvtest.Mark{Made: true}, trust).Reopen(path); !errors.Is(err, kv.ErrUnfinished) || errors.Is(err, ErrForged) {
			t.Errorf("trust %d: %v, %v, want ErrUnfinished", trust, s, err)
		}
	}
}

// TestRestoreClockBehind restores a backup by a clock that is behind what is in it: without the
// tokens being kept that is refused, and nothing changes.
func TestRestoreClockBehind(t *testing.T) {
	s := newServer(t)
	for _, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
		at := uint64(time.Now().Add(ahead).Unix())
		s.raw(t, "ids", map[string][]byte{"\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x01": binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), at)})
		dir := t.TempDir()
		backup, path := filepath.Join(dir, "backup"), filepath.Join(dir, "state")
		f, err := os.Create(backup)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Snapshot(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		_, err = RestoreServer(backup, path, false)
		wantErr(t, err, state.ErrClockBehind)
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("it left %v, %v", left, err)
		}
		if _, err := RestoreServer(backup, path, true); err != nil {
			t.Errorf("with the tokens kept: %v", err)
		}
	}
}
