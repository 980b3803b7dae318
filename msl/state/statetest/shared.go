package statetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// soon is how long a change at one server may take to reach another.
const soon = time.Second

// TestShared tests a state opened by several servers at the same time.
func TestShared(t *testing.T, place func(t testing.TB) Open) {
	for name, test := range map[string]func(*testing.T, []Server){
		"ids":          sharedIDs,
		"renewals":     sharedRenewals,
		"revocations":  sharedRevocations,
		"entities":     sharedEntities,
		"dates":        sharedDates,
		"expectations": sharedExpectations,
	} {
		t.Run(name, func(t *testing.T) {
			open := place(t)
			var servers []Server
			for range 3 {
				s := open(t)
				t.Cleanup(func() { s.Close() })
				servers = append(servers, s)
			}
			test(t, servers)
		})
	}
}

// within waits briefly until a condition holds.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, soon)
		}
	}
}

func sharedIDs(t *testing.T, servers []Server) {
	if n := acceptedOf(t, 30, func(i int) Server { return servers[i%len(servers)] }); n != 1 {
		t.Errorf("%d accepted one id", n)
	}
	for i := range int64(30) {
		must(t, servers[i%3].AcceptID(t.Context(), "other", 1, i+1))
		wantErr(t, "elsewhere", servers[(i+1)%3].AcceptID(t.Context(), "other", 1, i+1), msl.ErrMessageReplayed)
	}
}

// sharedRenewals renews a token at all servers in turn, and at all of them concurrently.
func sharedRenewals(t *testing.T, servers []Server) {
	newest := int64(1)
	for i := range 9 {
		next, err := servers[i%3].Renew(t.Context(), "device", 1, newest)
		must(t, err)
		newest = next
	}
	var wait sync.WaitGroup
	results := make([]int64, len(servers))
	for i, s := range servers {
		wait.Go(func() {
			next, err := s.Renew(t.Context(), "device", 1, newest)
			if err != nil && !errors.Is(err, msl.ErrMasterTokenSequenceNumberOutOfSync) {
				t.Error(err)
			}
			results[i] = next
		})
	}
	wait.Wait()
	for _, s := range servers {
		wantErr(t, "long ago", s.Renewable(t.Context(), "device", 1, 1), msl.ErrMasterTokenSequenceNumberOutOfSync)
	}
	t.Log(results)
}

// sharedRevocations revokes at one server what the others have seen before.
func sharedRevocations(t *testing.T, servers []Server) {
	must(t, servers[0].AddEntity(device("device", "PSK")))
	for i, s := range servers {
		within(t, "registered", func() bool { _, err := s.Entity(t.Context(), "device"); return err == nil })
		must(t, s.Revoked(t.Context(), "device", fmt.Sprint("user ", i)))
	}
	must(t, servers[1].RevokeEntity("device"), servers[1].RevokeUser("ann"))
	wantErr(t, "at the same", servers[1].Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
	for _, s := range servers {
		within(t, "revoked", func() bool {
			return errors.Is(s.Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked) &&
				errors.Is(s.Revoked(t.Context(), "other", "ann"), msl.ErrUserIDTokenRevoked)
		})
		e, err := s.Entity(t.Context(), "device")
		if must(t, err); !e.Revoked {
			t.Error("the entity of a name that is revoked is not")
		}
	}
	must(t, servers[2].UnrevokeEntity("device"))
	within(t, "lifted", func() bool { return servers[0].Revoked(t.Context(), "device", "") == nil })
}

// sharedEntities replaces and removes at one server what another has in use.
func sharedEntities(t *testing.T, servers []Server) {
	e := device("device", "PSK")
	must(t, servers[0].AddEntity(e))
	within(t, "registered", func() bool { _, err := servers[1].Entity(t.Context(), "device"); return err == nil })
	e.PSK.MAC = []byte{9}
	must(t, servers[0].ReplaceEntity(e))
	within(t, "replaced", func() bool {
		e, err := servers[1].Entity(t.Context(), "device")
		return err == nil && e.PSK.MAC[0] == 9
	})
	must(t, servers[1].RemoveEntity("device"))
	within(t, "removed", func() bool {
		_, err := servers[0].Entity(t.Context(), "device")
		return errors.Is(err, keystore.ErrNotFound)
	})
}

func sharedDates(t *testing.T, servers []Server) {
	must(t, servers[0].AddUser("ann", []byte("one")))
	must(t, servers[1].SetPassword("ann", []byte("two")))
	for _, s := range servers {
		within(t, "the password", func() bool {
			_, since, err := s.CountSince(t.Context(), "device", "ann")
			return err == nil && !since.IsZero()
		})
		if _, err := s.Verify(t.Context(), "ann", []byte("one")); !errors.Is(err, msl.ErrEmailPasswordIncorrect) {
			t.Errorf("the old password: %v", err)
		}
	}
}

// sharedExpectations checks that one server forgets nothing that a token known to another
// needs.
func sharedExpectations(t *testing.T, servers []Server) {
	must(t, servers[0].Expect(t.Context(), time.Now().Add(48*time.Hour)))
	must(t, servers[1].Expect(t.Context(), time.Now().Add(time.Hour)))
	must(t, servers[0].AcceptID(t.Context(), "device", 1, 1))
	f, err := servers[2].Forget(t.Context(), 0)
	if must(t, err); f.Tokens != 0 {
		t.Errorf("forgot %d", f.Tokens)
	}
	wantErr(t, "after pruning", servers[1].AcceptID(t.Context(), "device", 1, 1), msl.ErrMessageReplayed)
}
