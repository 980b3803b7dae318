package admin

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// sealedEntity has pre-shared keys that a store sealed.
func sealedEntity(t *testing.T, s *soft.Store, name string) state.EntityRecord {
	t.Helper()
	file := &entityauth.PSKFile{Identity: name, Encryption: make([]byte, 16), MAC: make([]byte, 32), Wrapping: make([]byte, 16)}
	sealed, err := file.Seal(s)
	if err != nil {
		t.Fatal(err)
	}
	return state.EntityRecord{Identity: name, Scheme: "PSK", PSK: sealed}
}

// TestWhy keeps what servers need, in the states that a rotation goes through.
func TestWhy(t *testing.T) { synctest.Test(t, why) }

func why(t *testing.T) {
	b, store := newBoard(), serverKeys(t)
	b.entities = []state.EntityRecord{sealedEntity(t, store, "camera")}
	r := &Rotator{State: b, Store: store, Prefix: "msl", Keep: time.Hour, Tell: func(string, ...any) {}}
	reason := func(later time.Duration, label string, version uint32) string {
		t.Helper()
		b.ahead = later
		n, err := FindNeeds(t.Context(), b, store, "msl", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return n.Why(label, version)
	}
	if _, err := store.Create("msl-issuer-mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	type want struct {
		later   time.Duration
		label   string
		version uint32
		why     string
	}
	check := func(all []want) {
		t.Helper()
		for _, c := range all {
			if got := reason(c.later, c.label, c.version); c.why == "" && got != "" || !strings.Contains(got, c.why) {
				t.Errorf("%s version %d after %v: %q, want %q", c.label, c.version, c.later, got, c.why)
			}
		}
	}
	check([]want{
		{0, "msl-issuer-mac", 1, "servers use it"},
		{0, "msl-issuer-mac", 2, ""}, // has no partner
		{0, "msl-identity", 1, ""},
		{0, "other", 1, ""},
	})
	b.cut = 2
	if err := r.Rotate(t.Context()); err == nil {
		t.Fatal("not cut off")
	}
	check([]want{{0, "msl-seal-mac", 1, "servers use it"}, {0, "msl-seal-mac", 2, "a rotation to it is under way"}})
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	check([]want{
		{0, "msl-issuer-mac", 1, "tokens that it made may be used until"},
		{119 * time.Minute, "msl-issuer-mac", 1, "tokens that it made may be used until"},
		{121 * time.Minute, "msl-issuer-mac", 1, ""},
		{0, "msl-issuer-mac", 3, "servers use it"},
		{121 * time.Minute, "msl-seal-session", 1, "the pre-shared keys of camera are sealed with it"},
		{121 * time.Minute, "msl-seal-wrapping", 1, "the pre-shared keys of camera are sealed with it"},
		{121 * time.Minute, "msl-seal-mac", 1, "the pre-shared keys of camera are sealed with it"},
		{121 * time.Minute, "msl-service-mac", 1, ""},
	})
	b.lapsed = 24 * time.Hour // by the clock of the command, which is ahead
	check([]want{
		{119 * time.Minute, "msl-issuer-mac", 1, "tokens that it made may be used until"},
		{25 * time.Hour, "msl-issuer-mac", 1, "by the clock here all tokens that it made have ended, but that is certain only once servers have run for another 1h0m0s: check this clock"},
		{27 * time.Hour, "msl-issuer-mac", 1, ""},
	})
	b.lapsed, b.entities, b.now.Replaced = 0, nil, nil
	check([]want{{121 * time.Minute, "msl-seal-mac", 1, "it is not known when"}})
}

// TestRetire destroys what nothing needs, after servers said that they do without it.
func TestRetire(t *testing.T) {
	b, store := newBoard(), serverKeys(t)
	b.entities = []state.EntityRecord{sealedEntity(t, store, "camera")}
	var told strings.Builder
	r := &Rotator{State: b, Store: store, Prefix: "msl", Keep: time.Hour, Tell: func(f string, a ...any) { told.WriteString(f + "\n") }}
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		all, err := store.List()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	if err := r.Retire(t.Context(), false); err != nil || count() != before {
		t.Fatalf("%v, %d keys of %d", err, count(), before)
	}
	for label := range b.now.Replaced { // long ago
		b.now.Replaced[label][2] = time.Now().Add(-3 * time.Hour)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	b.servers["one"] = state.Presence{Name: "one"}
	serving.Go(func() { b.serve(ctx, "one", 10*time.Millisecond) })
	err := r.Retire(t.Context(), false)
	if n := count(); err != nil || n != before-4 || b.now.Least["msl-issuer-mac"] != 2 || b.now.Least["msl-seal-mac"] != 1 {
		t.Errorf("%v, %d keys, %v", err, n, b.now.Least)
	}
	err = r.Retire(t.Context(), true)
	if n := count(); err != nil || n != before-7 || b.now.Least["msl-seal-mac"] != 2 {
		t.Errorf("%v, %d keys, %v", err, n, b.now.Least)
	}
	stop()
	serving.Wait()
	b.now.Step = state.StepMade
	if err := r.Retire(t.Context(), true); err == nil || !strings.Contains(err.Error(), "msl-hsm key rotate first") {
		t.Error(err)
	}
}

// A claiming store says of its sealing keys what those of a token may say.
type claiming struct {
	*soft.Store
	reseals, trusted uint32 // the first such versions
}

func (s claiming) List() ([]keystore.Info, error) {
	all, err := s.Store.List()
	for i, k := range all {
		all[i].Reseals, all[i].Trusted = k.Reseals && k.Version >= s.reseals, k.Trusted && k.Version >= s.trusted
	}
	return all, err
}

// TestRewrapTrusted seals nothing again that cannot leave, or that nothing takes, and says
// which of these it is. A dry run says the same and seals nothing.
func TestRewrapTrusted(t *testing.T) {
	b, soft := newBoard(), serverKeys(t)
	r := &Rotator{State: b, Store: soft, Prefix: "msl", Keep: time.Hour, Tell: func(string, ...any) {}}
	for _, name := range []string{"b", "a"} {
		b.entities = append(b.entities, sealedEntity(t, soft, name))
		if err := r.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	broken := sealedEntity(t, soft, "c")
	broken.PSK.MAC = []byte("no sealed key")
	b.entities = append(b.entities, broken)
	for _, c := range []struct {
		reseals, trusted uint32
		want             []Left
	}{
		{4, 3, []Left{{"a", 2, true}, {"b", 1, true}, {"c", 0, true}}},
		{2, 4, []Left{{"a", 2, false}, {"b", 1, true}, {"c", 0, true}}},
		{2, 3, []Left{{"b", 1, true}, {"c", 0, true}}},
	} {
		r.Store = claiming{soft, c.reseals, c.trusted}
		for _, f := range []func(context.Context) ([]Left, error){r.Unsealable, r.Rewrap} {
			if left, err := f(t.Context()); err != nil || !slices.Equal(left, c.want) {
				t.Errorf("%+v: %v, %v", c, left, err)
			}
		}
	}
	n, err := FindNeeds(t.Context(), b, claiming{soft, 1, 1}, "msl", time.Hour)
	if why := n.Why("msl-seal-wrapping", 1); err != nil || !strings.Contains(why, "of b are sealed with it (msl-hsm key rewrap seals them again)") {
		t.Error(why, err)
	}
}

// An inMemory store says of its sealing keys what those for session keys in memory say.
type inMemory struct{ *soft.Store }

func (s inMemory) List() ([]keystore.Info, error) {
	all, err := s.Store.List()
	for i := range all {
		all[i].Stored = "memory:" + all[i].Label
	}
	return all, err
}

// TestRewrapApart names entities whose keys were sealed under another keystore.session-keys,
// though by the version of the same number.
func TestRewrapApart(t *testing.T) {
	b, store := newBoard(), serverKeys(t)
	b.entities = []state.EntityRecord{sealedEntity(t, store, "one")}
	r := &Rotator{State: b, Store: inMemory{store}, Prefix: "msl", Keep: time.Hour, Tell: func(string, ...any) {}}
	if left, err := r.Rewrap(t.Context()); err != nil || !slices.Equal(left, []Left{{"one", 1, true}}) {
		t.Errorf("%v, %v", left, err)
	}
	r.Store = store
	if left, err := r.Rewrap(t.Context()); err != nil || left != nil {
		t.Errorf("%v, %v", left, err)
	}
}

// TestRewrap seals pre-shared keys again where the store can, and then nothing needs the
// older version; entities of a store that cannot are named.
func TestRewrap(t *testing.T) {
	b, store := newBoard(), serverKeys(t)
	b.entities = []state.EntityRecord{sealedEntity(t, store, "one"), sealedEntity(t, store, "two"), {Identity: "rsa"}}
	r := &Rotator{State: b, Store: store, Prefix: "msl", Keep: time.Hour, Tell: func(string, ...any) {}}
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.entities = append(b.entities, sealedEntity(t, store, "new"))
	r.Store = struct{ keystore.Admin }{store}
	if again, err := r.Rewrap(t.Context()); err != nil || !slices.Equal(again, []Left{{"one", 1, true}, {"two", 1, true}}) {
		t.Errorf("%v, %v", again, err)
	}
	r.Store = store
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := r.Rewrap(ctx); err == nil || !strings.Contains(err.Error(), "run it again to continue") {
		t.Error(err)
	}
	for range 2 {
		if again, err := r.Rewrap(t.Context()); err != nil || len(again) > 0 {
			t.Errorf("%v, %v", again, err)
		}
	}
	n, err := FindNeeds(t.Context(), b, store, "msl", time.Hour)
	if err != nil || len(n.sealedWith("msl-seal-mac", 1)) > 0 || len(n.sealedWith("msl-seal-wrapping", 2)) != 3 {
		t.Errorf("%v, %v", n.sealedWith("msl-seal-mac", 1), err)
	}
	if err := store.Destroy("msl-seal-mac", 1); err != nil {
		t.Fatal(err)
	}
	for _, e := range b.entities[:2] {
		k, err := store.Unseal(keystore.AESWrap128, e.PSK.Wrapping, msl.PSKContext(msl.PSKWrapping, e.Identity))
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	if _, err := store.Reseal(b.entities[0].PSK.MAC, msl.PSKContext(msl.PSKMAC, "two")); err == nil {
		t.Error("sealed again for another entity")
	}
}
