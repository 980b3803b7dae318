//go:build !noetcd

package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// filled is a state in a file with some of everything.
func filled(t *testing.T) *bolt.Server {
	t.Helper()
	s, err := bolt.CreateServer(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range 250 {
		e := state.EntityRecord{Identity: fmt.Sprint("device ", i), Scheme: "NONE"}
		if err := s.ReplaceEntity(e); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Renew(t.Context(), "device 1", 1, 1)
	err = errors.Join(err, s.RevokeEntity("device 7"), s.RemoveEntity("device 8"), s.AddUser("ann", []byte("password")),
		s.AcceptID(t.Context(), "device 1", 1, 5), s.Expect(t.Context(), time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestThereAndBack imports a state from a file and writes it to another: all three are the
// same.
func TestThereAndBack(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	from := filled(t)
	records := 0
	if _, err := Import(t.Context(), c, from.Server, true, func(n int) { records = n }); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if records < 250 || s.Revoked(t.Context(), "device 7", "") != msl.ErrMasterTokenIdentityRevoked {
		t.Errorf("%d records; %v", records, s.Revoked(t.Context(), "device 7", ""))
	}
	if err := s.AcceptID(t.Context(), "device 1", 1, 5); !errors.Is(err, msl.ErrMessageReplayed) {
		t.Errorf("a replay: %v", err)
	}
	path := filepath.Join(t.TempDir(), "back")
	sum, err := bolt.WriteServer(t.Context(), path, s.Server, nil)
	if err != nil || sum.Entities != 249 || sum.Users != 1 || sum.IDs != 1 || sum.Sequences != 1 {
		t.Fatalf("%+v, %v", sum, err)
	}
	back, err := bolt.ReopenServer(path)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	for name, other := range map[string]*state.Server{"etcd": s.Server, "back": back.Server} {
		want, err := from.Digest(t.Context())
		got, errOther := other.Digest(t.Context())
		if err := errors.Join(err, errOther); err != nil || got != want {
			t.Errorf("%s differs: %d and %d records, %v", name, got.Records, want.Records, err)
		}
	}
	if _, err := bolt.WriteServer(t.Context(), path, s.Server, nil); !errors.Is(err, ErrExists) {
		t.Errorf("over a file: %v", err)
	}
	if _, err := Import(t.Context(), c, from.Server, true, nil); !errors.Is(err, ErrExists) {
		t.Errorf("over a state: %v", err)
	}
}

// TestImportResumes ends an import in its middle: there is no state until it is repeated.
func TestImportResumes(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	from := filled(t)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Import(ctx, c, from.Server, false, func(int) { cancel() }); err == nil {
		t.Fatal("it was not ended")
	}
	for name, open := range map[string]func(context.Context, Config) (*Server, error){"Open": Open, "Administer": Administer} {
		if _, err := open(t.Context(), c); !errors.Is(err, kv.ErrUnfinished) {
			t.Errorf("%s of a part of a state: %v, want ErrUnfinished", name, err)
		}
	}
	if _, err := Import(t.Context(), c, from.Server, false, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	since, _, err := s.CountSince(t.Context(), "device 1", "")
	if err != nil || since.IsZero() {
		t.Errorf("tokens count since %v: %v", since, err)
	}
}

// TestImportEndsLate ends an import after it has ended all tokens: it can be repeated, also by a
// version that did not know that another one may continue it.
func TestImportEndsLate(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	from := fresh(t)
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	db, err := c.place().Open(t.Context(), etcdkv.OpenExisting)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	copied, err := from.CopyTo(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.EndTokens(copied, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), c, from.Server, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := copied.Finish(t.Context()); !errors.Is(err, kv.ErrOvertaken) {
		t.Errorf("the one that was ended goes on: %v, want ErrOvertaken", err)
	}
}

// fresh is a state in a file whose server issued no token yet.
func fresh(t *testing.T) *bolt.Server {
	t.Helper()
	s, err := bolt.CreateServer(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.ReplaceEntity(state.EntityRecord{Identity: "device", Scheme: "NONE"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestImportGoesOnLate pauses an import, which another process repeats and completes: what is
// revoked after that stays so when the first one continues.
func TestImportGoesOnLate(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	from := filled(t)
	paused, goOn, ended := make(chan bool), make(chan bool), make(chan error)
	go func() {
		first := true
		_, err := Import(t.Context(), c, from.Server, true, func(int) {
			if first {
				first = false
				close(paused)
				<-goOn
			}
		})
		ended <- err
	}()
	<-paused
	if _, err := Import(t.Context(), c, from.Server, true, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RevokeEntity("device 99"); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-ended; !errors.Is(err, kv.ErrOvertaken) {
		t.Errorf("the paused one ended with %v, want ErrOvertaken", err)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Revoked(t.Context(), "device 99", ""); err != msl.ErrMasterTokenIdentityRevoked {
		t.Errorf("the revocation: %v", err)
	}
}

// TestCreateGoesOnLate pauses one that makes a state, before it has made its root. Another one
// imports a state there meanwhile, which stays authentic when the first one goes on.
func TestCreateGoesOnLate(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	paused, err := c.place().Open(t.Context(), etcdkv.CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	defer paused.Close()
	if _, err := Import(t.Context(), c, filled(t).Server, true, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := authkv.Begin(t.Context(), paused, key); !errors.Is(err, ErrExists) {
		t.Errorf("the paused one ended with %v, want ErrExists", err)
	}
	if err := errors.Join(s.RevokeEntity("device 99"), s.Verify(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestImportIntoUsed imports into an empty state that servers used: what they left there does
// not make the result inauthentic.
func TestImportIntoUsed(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.AddPair(t.Context(), state.Pair{1: []byte("x")}), s.SetRotation(t.Context(), state.Rotation{Number: 1}))
	for i := range 2 * kv.MaxChanges {
		err = errors.Join(err, s.SetPresence(t.Context(), fmt.Sprint(i), state.Presence{}))
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), c, filled(t).Server, false, nil); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if all, err := s.Presences(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d servers are there: %v", len(all), err)
	}
}

// TestImportUnseen opens a state again and again while it is imported: at no moment a server
// can begin with an empty one.
func TestImportUnseen(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	from := filled(t)
	for i := range 5 {
		c := Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("state", i), Key: key}
		ended := make(chan error, 1)
		go func() {
			_, err := Import(t.Context(), c, from.Server, true, nil)
			ended <- err
		}()
		s, err := Open(t.Context(), c)
		for err != nil && len(ended) == 0 {
			s, err = Open(t.Context(), c)
		}
		if err == nil {
			if err := s.Revoked(t.Context(), "device 7", ""); err != msl.ErrMasterTokenIdentityRevoked {
				t.Errorf("a part of the state was opened: %v", err)
			}
			s.Close()
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// TestImportOfAnother continues with a different file than the one of which a part was imported.
func TestImportOfAnother(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}, Prefix: "one"}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Import(ctx, c, filled(t).Server, true, func(int) { cancel() }); err == nil {
		t.Fatal("it was not ended")
	}
	other := fresh(t)
	_, err := Import(t.Context(), c, other.Server, true, nil)
	if err == nil || !strings.Contains(err.Error(), "etcdctl del --prefix one/") {
		t.Fatalf("%v", err)
	}
	if _, err := Open(t.Context(), c); !errors.Is(err, kv.ErrUnfinished) {
		t.Errorf("a mixture of two: %v, want ErrUnfinished", err)
	}
	m.Control(t, "del", "--prefix", "one/")
	if _, err := Import(t.Context(), c, other.Server, true, nil); err != nil {
		t.Error(err)
	}
}

// TestImportByServers imports into an empty state that servers have open, with a clock that seems
// to be wrong: it asks them, and so the tokens end that any of them may have issued.
func TestImportByServers(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		server, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.StartPruning(state.Pruning{Keep: time.Hour})
	}
	setNoted(t, c, time.Now().AddDate(-1, 0, 0))
	ended, err := Import(t.Context(), c, fresh(t).Server, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Administer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	since, _, err := s.CountSince(t.Context(), "device", "")
	if ahead := time.Until(since); err != nil || ahead < 4*time.Minute || ahead > 7*time.Minute || since.Sub(ended) > time.Second {
		t.Errorf("tokens count from %v on, and ended until %v: %v", ahead, ended, err)
	}
}

// setNoted changes the time that servers have noted, as soon as they have.
func setNoted(t *testing.T, c Config, at time.Time) {
	t.Helper()
	s, err := Administer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for noted := false; !noted; time.Sleep(20 * time.Millisecond) {
		err := s.store.Update(t.Context(), func(tx kv.Tx) error {
			value, err := tx.Get(kv.Settings, []byte("noted"))
			if noted = value != nil; err != nil || !noted {
				return err
			}
			return tx.Put(kv.Settings, []byte("noted"), binary.BigEndian.AppendUint64(nil, uint64(at.Unix())))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
