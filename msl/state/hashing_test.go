package state

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/stretch"

	"github.com/msl-hsm/msl-hsm/msl"
)

// heap returns the heap memory that the process has not given back, in MiB.
func heap() int {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(s)
	return int((s[0].Value.Uint64() + s[1].Value.Uint64() + s[2].Value.Uint64()) >> 20)
}

// TestMemoryOfPasswords checks many passwords in a process that lets its heap grow, as
// a server does.
func TestMemoryOfPasswords(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	const places, checks = 2, 10
	s := newServer(t)
	s.cost = stretch.Cost{Time: 1, Memory: 64 << 10, Threads: 1}
	s.PasswordsAtATime(places)
	debug.FreeOSMemory()
	before, most := heap(), 0
	var wait sync.WaitGroup
	for range checks {
		wait.Go(func() {
			if _, err := s.Verify(t.Context(), "ann", []byte("guess")); err != msl.ErrEmailPasswordIncorrect {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(5 * time.Millisecond):
		}
		most = max(most, heap()-before)
	}
	t.Logf("%d checks of 64 MiB, %d at a time: %d MiB at most", checks, places, most)
	if most > 2*places*64+32 {
		t.Errorf("%d MiB for %d checks at a time", most, places)
	}
}

// TestCostOfUnknownNames checks that an unknown name costs as much as that of a user,
// even while some users have passwords with an older cost.
func TestCostOfUnknownNames(t *testing.T) {
	s := newServer(t)
	if p, known, err := s.password(t.Context(), "nobody"); err != nil || known || p.cost() != s.cost {
		t.Errorf("without users: %+v, %v, %v", p.cost(), known, err)
	}
	wantErr(t, s.AddUser("bob", []byte("correct horse")), nil)
	old := s.cost
	s.cost = stretch.Cost{Time: 2, Memory: 128, Threads: 2}
	wantErr(t, s.AddUser("eve", []byte("correct horse")), nil)
	wantErr(t, s.RevokeUser("bob"), nil)
	for name, want := range map[string]stretch.Cost{"ann": old, "bob": old, "bobby": s.cost, "eve": s.cost, "zoe": old} {
		if p, known, err := s.password(t.Context(), name); err != nil || known != (name == "eve") || p.cost() != want {
			t.Errorf("%s: cost %+v, known %v, %v", name, p.cost(), known, err)
		}
	}
	if err := s.store.Update(t.Context(), func(tx kv.Tx) error { return tx.Put(tableUsers, []byte("bob"), []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	if p, known, err := s.password(t.Context(), "ann"); err != nil || known || p.cost() != s.cost {
		t.Errorf("beside a damaged record: %+v, %v, %v", p.cost(), known, err)
	}
}

func TestFindUser(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"ann", "bob", "cat"} {
		wantErr(t, s.AddUser(name, []byte("correct horse")), nil)
	}
	wantErr(t, s.RevokeUser("bob"), nil)
	wantErr(t, s.RemoveUser("cat"), nil)
	for name, want := range map[string]string{"ann": "ann", "bob": "", "cat": "", "dan": "", "": ""} {
		if user, err := s.FindUser(t.Context(), name); err != nil || user != want {
			t.Errorf("FindUser(%q) = %q, %v", name, user, err)
		}
	}
}
