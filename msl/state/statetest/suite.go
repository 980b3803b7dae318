// Package statetest has the tests that the state of a server must pass, wherever it is kept.
package statetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Server is an open state of a server.
type Server struct {
	*state.Server
	Close func() error
}

// An Open function opens the state at a place, the same one at each call. The suite
// closes what it opens.
type Open func(t testing.TB) Server

// TestServer tests a state. Each call of place returns the opener of a new, empty place.
// It never opens a place twice at the same time.
func TestServer(t *testing.T, place func(t testing.TB) Open) {
	for name, test := range map[string]func(*testing.T, *one){
		"entities":     testEntities,
		"conflicts":    testConflicts,
		"users":        testUsers,
		"revocations":  testRevocations,
		"withdrawn":    testWithdrawn,
		"families":     testFamilies,
		"coming back":  testComingBack,
		"ids":          testIDs,
		"ids at once":  testIDsAtOnce,
		"renewals":     testRenewals,
		"expectations": testExpectations,
		"forever":      testForever,
		"names":        testNames,
		"rotations":    testRotations,
		"resealing":    testReseal,
		"pairs":        testPairs,
	} {
		t.Run(name, func(t *testing.T) {
			o := &one{t: t, open: place(t)}
			o.Server = o.open(t)
			t.Cleanup(func() { o.Close() })
			test(t, o)
		})
	}
}

// A one is a state that is reopened repeatedly: what it knows must not depend on that.
type one struct {
	Server
	t    *testing.T
	open Open
}

func (o *one) reopen() {
	o.t.Helper()
	must(o.t, o.Close())
	o.Server = o.open(o.t)
}

// twice runs fn before and after the state is reopened.
func (o *one) twice(fn func()) {
	o.t.Helper()
	fn()
	o.reopen()
	fn()
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func device(identity, scheme string) state.EntityRecord {
	return state.EntityRecord{
		Identity: identity, Scheme: scheme,
		PSK: &msl.SealedPSK{Encryption: []byte{1}, MAC: []byte{2}, Wrapping: []byte{3}},
	}
}

func testEntities(t *testing.T, o *one) {
	e := device("camera", "PSK")
	e.KeyExchanges, e.UserSchemes = []string{"SYMMETRIC_WRAPPED"}, []string{}
	must(t, o.AddEntity(e))
	o.twice(func() {
		found, err := o.Entity(t.Context(), "camera")
		must(t, err)
		if found.Identity != "camera" || found.Scheme != "PSK" || found.PSK == nil || !slices.Equal(found.KeyExchanges, e.KeyExchanges) || found.UserSchemes == nil || len(found.UserSchemes) > 0 {
			t.Errorf("%+v", found)
		}
		_, err = o.Entity(t.Context(), "nobody")
		wantErr(t, "unknown", err, keystore.ErrNotFound)
	})
	e.KeyExchanges = []string{"JWK_RSA"}
	must(t, o.ReplaceEntity(e))
	found, err := o.Entity(t.Context(), "camera")
	must(t, err)
	if !slices.Equal(found.KeyExchanges, e.KeyExchanges) {
		t.Errorf("what was replaced is %v", found.KeyExchanges)
	}
	record, err := o.Record(t.Context(), "camera")
	if must(t, err); record.Identity != "camera" || record.PSK == nil || record.Revoked {
		t.Errorf("the record is %+v", record)
	}
	_, err = o.Record(t.Context(), "nobody")
	wantErr(t, "the record of nobody", err, state.ErrUnknown)
	all, err := o.Entities()
	must(t, err)
	if len(all) != 1 || all[0].Identity != "camera" || all[0].Revoked || all[0].Created.IsZero() {
		t.Errorf("listed %+v", all)
	}
}

func testConflicts(t *testing.T, o *one) {
	must(t, o.AddEntity(device("a", "PSK_PROFILE")), o.AddUser("ann", []byte("password")))
	wantErr(t, "twice", o.AddEntity(device("a", "PSK")), state.ErrExists)
	wantErr(t, "the same family", o.AddEntity(device("a-b", "PSK_PROFILE")), state.ErrExists)
	wantErr(t, "a user twice", o.AddUser("ann", []byte("other")), state.ErrExists)
	wantErr(t, "remove", o.RemoveEntity("b"), state.ErrUnknown)
	wantErr(t, "remove a user", o.RemoveUser("bob"), state.ErrUnknown)
	wantErr(t, "unrevoke", o.UnrevokeEntity("a"), state.ErrNotRevoked)
	must(t, o.RevokeEntity("c"))
	wantErr(t, "revoked", o.AddEntity(device("c", "PSK")), state.ErrRevoked)
}

func testUsers(t *testing.T, o *one) {
	must(t, o.AddUser("ann@example.com", []byte("one")))
	verify := func(password string, want error) {
		t.Helper()
		user, err := o.Verify(t.Context(), "ann@example.com", []byte(password))
		wantErr(t, password, err, want)
		if err == nil && user != "ann@example.com" {
			t.Errorf("user %q", user)
		}
	}
	o.reopen()
	verify("one", nil)
	must(t, o.SetPassword("ann@example.com", []byte("two")))
	verify("one", msl.ErrEmailPasswordIncorrect)
	must(t, o.RemoveUser("ann@example.com"))
	verify("two", msl.ErrEmailPasswordIncorrect)
	all, err := o.Users()
	must(t, err)
	if len(all) != 1 || !all[0].Removed {
		t.Errorf("listed %+v", all)
	}
}

func testRevocations(t *testing.T, o *one) {
	must(t, o.AddEntity(device("device", "PSK")), o.AddEntity(device("lost", "PSK")), o.AddEntity(device("bad", "PSK")))
	must(t, o.RemoveEntity("lost"), o.RevokeEntity("bad"), o.RevokeEntity("CN=never registered"), o.RevokeUser("eve"))
	o.twice(func() {
		for _, c := range []struct {
			identity, user string
			want           error
		}{
			{"device", "", nil},
			{"device", "ann", nil},
			{"CN=unknown", "", nil},
			{"device", "eve", msl.ErrUserIDTokenRevoked},
			{"lost", "", msl.ErrMasterTokenIdentityRevoked},
			{"bad", "eve", msl.ErrMasterTokenIdentityRevoked},
			{"CN=never registered", "", msl.ErrMasterTokenIdentityRevoked},
		} {
			if err := o.Revoked(t.Context(), c.identity, c.user); err != c.want {
				t.Errorf("Revoked(%q, %q) = %v, want %v", c.identity, c.user, err, c.want)
			}
		}
	})
	bad, err := o.Entity(t.Context(), "bad")
	must(t, err)
	if !bad.Revoked {
		t.Error("a revoked entity is not marked as such")
	}
	must(t, o.UnrevokeEntity("bad"))
	wantErr(t, "lifted", o.Revoked(t.Context(), "bad", ""), nil)
	if bad, err = o.Entity(t.Context(), "bad"); err != nil || bad.Revoked {
		t.Errorf("lifted: %+v, %v", bad, err)
	}
	sum, err := o.Summary()
	must(t, err)
	if sum.Entities != 2 || sum.EntitiesRevoked != 1 || sum.EntitiesRemoved != 1 || sum.UsersRevoked != 1 {
		t.Errorf("summary %+v", sum)
	}
}

// testWithdrawn has an authority take back what it did, but not what an operator did.
func testWithdrawn(t *testing.T, o *one) {
	must(t, o.AddEntity(device("device", "PSK")), o.WithdrawEntity("device"), o.WithdrawEntity("CN=device"))
	o.twice(func() {
		wantErr(t, "withdrawn", o.Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
	})
	_, err := o.RestoreEntities("device", "CN=device", "CN=never there")
	must(t, err, o.Revoked(t.Context(), "device", ""), o.Revoked(t.Context(), "CN=device", ""))
	must(t, o.WithdrawEntity("device"), o.WithdrawEntity("CN=device"), o.RevokeEntity("CN=device"), o.WithdrawEntity("CN=device"))
	o.twice(func() {
		kept, err := o.RestoreEntities("device", "CN=device")
		wantErr(t, "kept", err, state.ErrRevoked)
		if kept != "CN=device" {
			t.Errorf("%q is kept", kept)
		}
		wantErr(t, "the other", o.Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
	})
	must(t, o.UnrevokeEntity("CN=device"), o.WithdrawEntity("CN=device"))
	_, err = o.RestoreEntities("device", "CN=device")
	must(t, err, o.Revoked(t.Context(), "CN=device", ""))
}

func testFamilies(t *testing.T, o *one) {
	must(t, o.AddEntity(device("keys", "PSK_PROFILE")), o.AddEntity(device("root", "NONE_SUFFIXED")))
	o.twice(func() {
		for _, identity := range []string{"keys-night", "root.app"} {
			_, err := o.Entity(t.Context(), identity)
			wantErr(t, identity, err, nil)
			wantErr(t, identity, o.Revoked(t.Context(), identity, ""), nil)
		}
	})
	must(t, o.RevokeEntity("keys"), o.RemoveEntity("root"))
	o.twice(func() {
		for _, identity := range []string{"keys-night", "root.app"} {
			wantErr(t, identity, o.Revoked(t.Context(), identity, ""), msl.ErrMasterTokenIdentityRevoked)
		}
		wantErr(t, "another", o.Revoked(t.Context(), "keyring-night", ""), nil)
	})
}

func testComingBack(t *testing.T, o *one) {
	before := time.Now()
	must(t, o.AddEntity(device("device", "PSK")), o.AddUser("ann", []byte("one")))
	must(t, o.RemoveEntity("device"), o.AddEntity(device("device", "PSK")), o.SetPassword("ann", []byte("two")))
	o.twice(func() {
		entity, user, err := o.CountSince(t.Context(), "device", "ann")
		must(t, err)
		if now := time.Now(); entity.Before(before) || entity.After(now) || user.Before(before) || user.After(now) {
			t.Errorf("tokens count since %v and %v", entity, user)
		}
		wantErr(t, "back", o.Revoked(t.Context(), "device", "ann"), nil)
		entity, user, err = o.CountSince(t.Context(), "other", "bob")
		if must(t, err); !entity.IsZero() || !user.IsZero() {
			t.Errorf("tokens of others count since %v and %v", entity, user)
		}
	})
}

func testIDs(t *testing.T, o *one) {
	for _, c := range []struct {
		serial, id int64
		want       error
	}{
		{1, 5, nil}, {1, 5, msl.ErrMessageReplayed}, {1, 4, msl.ErrMessageReplayed},
		{1, 6, nil}, {2, 5, nil}, {1, 6 + 65536, nil}, {1, 6 + 2*65536 + 1, msl.ErrMessageReplayedUnrecoverable},
	} {
		wantErr(t, fmt.Sprint(c.serial, c.id), o.AcceptID(t.Context(), "device", c.serial, c.id), c.want)
	}
	o.reopen()
	wantErr(t, "afterwards", o.AcceptID(t.Context(), "device", 2, 5), msl.ErrMessageReplayed)
	wantErr(t, "another spelling", o.AcceptID(t.Context(), "device", 2, 6), nil)
}

func testIDsAtOnce(t *testing.T, o *one) {
	if n := acceptedOf(t, 20, func(int) Server { return o.Server }); n != 1 {
		t.Errorf("%d accepted one id", n)
	}
}

// acceptedOf submits one id concurrently to several servers, and returns how many accept
// it.
func acceptedOf(t *testing.T, times int, server func(i int) Server) int64 {
	var wait sync.WaitGroup
	var accepted atomic.Int64
	for i := range times {
		wait.Go(func() {
			switch err := server(i).AcceptID(t.Context(), "device", 1, 7); {
			case err == nil:
				accepted.Add(1)
			case !errors.Is(err, msl.ErrMessageReplayed):
				t.Error(err)
			}
		})
	}
	wait.Wait()
	return accepted.Load()
}

func testRenewals(t *testing.T, o *one) {
	newest := int64(1)
	for range 3 {
		wantErr(t, "renewable", o.Renewable(t.Context(), "device", 1, newest), nil)
		next, err := o.Renew(t.Context(), "device", 1, newest)
		must(t, err)
		if next <= newest {
			t.Fatalf("renewed %d as %d", newest, next)
		}
		newest = next
		o.reopen()
	}
	_, err := o.Renew(t.Context(), "device", 1, 1)
	wantErr(t, "an old one", err, msl.ErrMasterTokenSequenceNumberOutOfSync)
	wantErr(t, "an old one", o.Renewable(t.Context(), "device", 1, 1), msl.ErrMasterTokenSequenceNumberOutOfSync)
}

// testExpectations checks that nothing needed by a long-lived token is forgotten.
func testExpectations(t *testing.T, o *one) {
	must(t, o.Expect(t.Context(), time.Now().Add(48*time.Hour)))
	must(t, o.AcceptID(t.Context(), "device", 1, 1))
	o.reopen()
	for range 3 {
		must(t, o.Expect(t.Context(), time.Now().Add(47*time.Hour)))
	}
	f, err := o.Forget(t.Context(), 0)
	must(t, err)
	if f.Tokens != 0 {
		t.Errorf("forgot %d", f.Tokens)
	}
	wantErr(t, "after pruning", o.AcceptID(t.Context(), "device", 1, 1), msl.ErrMessageReplayed)
}

// testForever checks that the use of a token that never expires, perhaps another
// issuer's, is remembered, and that others are not affected.
func testForever(t *testing.T, o *one) {
	for _, until := range []int64{1 << 33, 1 << 40, 1 << 55} { // in seconds; a duration holds up to 2^33
		must(t, o.Expect(t.Context(), time.Unix(until, 0)), o.AcceptID(t.Context(), "device", until, 1))
		must(t, o.Expect(t.Context(), time.Now().Add(time.Hour)))
	}
	o.reopen()
	f, err := o.Forget(t.Context(), 0)
	must(t, err)
	if f.Tokens != 0 {
		t.Errorf("forgot %d", f.Tokens)
	}
	must(t, o.Expect(t.Context(), time.Unix(1<<55, 0)), o.Expect(t.Context(), time.Now().Add(48*time.Hour)))
	wantErr(t, "after pruning", o.AcceptID(t.Context(), "device", 1<<55, 1), msl.ErrMessageReplayed)
}

// testNames checks that different names stay apart, and spellings of one name together.
func testNames(t *testing.T, o *one) {
	names := []string{"a/b", "a", "~ids", "=news", "..", "é", "名前", "a b", "x-y.z"}
	for _, name := range names {
		must(t, o.AddEntity(device(name, "PSK")), o.AcceptID(t.Context(), name, 1, 1))
	}
	o.twice(func() {
		for _, name := range names {
			e, err := o.Entity(t.Context(), name)
			if must(t, err); e.Identity != name {
				t.Errorf("%q is %q", name, e.Identity)
			}
			wantErr(t, name, o.AcceptID(t.Context(), name, 1, 1), msl.ErrMessageReplayed)
		}
	})
	wantErr(t, "decomposed", o.AcceptID(t.Context(), "e\u0301", 1, 1), nil)
	must(t, o.RevokeEntity("e\u0301"))
	wantErr(t, "composed", o.Revoked(t.Context(), "é", ""), msl.ErrMasterTokenIdentityRevoked)
}
