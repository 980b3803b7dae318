package state

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// The spellings of one name: with characters as short as they can be, as long, and in
// between.
const (
	composed   = "caf\u00e9-\u1e69"
	decomposed = "cafe\u0301-s\u0323\u0307"
	between    = "caf\u00e9-s\u0323\u0307"
	reordered  = "cafe\u0301-s\u0307\u0323"
)

var spelled = []string{composed, decomposed, between, reordered}

// An oldState has records that an earlier version stored under their names as they came.
func oldState(t *testing.T, entities, users []string, change func(tx kv.Tx) error) *Server {
	t.Helper()
	store := &kvtest.Memory{}
	s, err := NewServer(store)
	wantErr(t, err, nil)
	s.cost = cheap
	user, err := s.encodePassword([]byte("x"), time.Time{})
	wantErr(t, err, nil)
	err = store.Update(t.Context(), func(tx kv.Tx) error {
		for _, name := range entities {
			payload, err := EntityRecord{Identity: name, Scheme: "NONE"}.encode()
			if err := errors.Join(err, entityRoll.add(tx, name, payload)); err != nil {
				return err
			}
		}
		for _, name := range users {
			if err := userRoll.add(tx, name, user); err != nil {
				return err
			}
		}
		if change == nil {
			return nil
		}
		return change(tx)
	})
	wantErr(t, err, nil)
	s, err = NewServer(store)
	wantErr(t, err, nil)
	s.cost = cheap
	return s
}

// admits reports whether an entity and a user are known by that spelling.
func (s *Server) admits(t *testing.T, name string) (entity, user bool) {
	t.Helper()
	e, err := s.Entity(t.Context(), name)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		t.Fatal(err)
	}
	entity = err == nil && !e.Revoked
	if revoked := s.Revoked(t.Context(), name, "") != nil; entity && revoked {
		t.Errorf("%+q is registered and revoked", name)
	}
	got, err := s.Verify(t.Context(), name, []byte("x"))
	if err == nil && got != composed {
		t.Errorf("user %+q is %+q", name, got)
	}
	found, errFind := s.FindUser(t.Context(), name)
	if (found != "") != (err == nil) || errFind != nil {
		t.Errorf("user %+q: found %+q, %v; %v", name, found, errFind, err)
	}
	return entity, err == nil
}

// TestSpellings registers a name in one spelling and asks for it in every other one,
// whichever version registered it.
func TestSpellings(t *testing.T) {
	for _, stored := range spelled {
		fresh := oldState(t, nil, nil, nil)
		wantErr(t, first(fresh.AddEntity(EntityRecord{Identity: stored, Scheme: "NONE"}), fresh.AddUser(stored, []byte("x"))), nil)
		old := oldState(t, []string{stored}, []string{stored}, nil)
		for version, s := range map[string]*Server{"this": fresh, "an earlier": old} {
			for _, name := range spelled {
				if entity, user := s.admits(t, name); !entity || !user {
					t.Errorf("%+q of %s version as %+q: entity %v, user %v", stored, version, name, entity, user)
				}
				wantErr(t, s.AddEntity(EntityRecord{Identity: name, Scheme: "NONE"}), ErrExists)
				wantErr(t, s.AddUser(name, []byte("x")), ErrExists)
				wantErr(t, first(s.RevokeEntity(name), s.RevokeUser(name)), nil)
				for _, other := range spelled {
					wantErr(t, s.Revoked(t.Context(), other, ""), msl.ErrMasterTokenIdentityRevoked)
					wantErr(t, s.Revoked(t.Context(), "nobody", other), msl.ErrUserIDTokenRevoked)
					if entity, user := s.admits(t, other); entity || user {
						t.Errorf("%+q is revoked and admitted", other)
					}
				}
				wantErr(t, first(s.UnrevokeEntity(reordered), s.UnrevokeUser(reordered)), nil)
			}
			wantErr(t, first(s.RemoveEntity(between), s.RemoveUser(between)), nil)
			for _, name := range spelled {
				wantErr(t, s.Revoked(t.Context(), name, ""), msl.ErrMasterTokenIdentityRevoked)
				wantErr(t, s.Revoked(t.Context(), "nobody", name), msl.ErrUserIDTokenRevoked)
			}
			if all, err := s.Apart(t.Context()); len(all) > 0 || err != nil {
				t.Errorf("apart: %+v, %v", all, err)
			}
		}
	}
}

// TestSpellingsApart has two registrations that an earlier version took for two names.
// They are never merged: the composed one stays, and the tokens of the other one are
// refused. When one is removed, the other one has all spellings but that.
func TestSpellingsApart(t *testing.T) {
	for name, c := range map[string]struct {
		stored, admitted []string
		apart            int
	}{
		"composed wins":   {[]string{decomposed, composed}, []string{composed, between, reordered}, 1},
		"none wins":       {[]string{decomposed, between}, nil, 2},
		"composed of all": {spelled, []string{composed}, 3},
	} {
		s := oldState(t, c.stored, c.stored, nil)
		for _, as := range spelled {
			want := slices.Contains(c.admitted, as)
			if entity, user := s.admits(t, as); entity != want || user != want {
				t.Errorf("%s: %+q: entity %v, user %v", name, as, entity, user)
			}
			if revoked := s.Revoked(t.Context(), as, "") != nil; revoked == want {
				t.Errorf("%s: %+q: revoked %v", name, as, revoked)
			}
		}
		all, err := s.Apart(t.Context())
		if err != nil || len(all) != 2*c.apart {
			t.Errorf("%s: apart %+v, %v", name, all, err)
		}
		wantErr(t, first(s.RemoveEntity(decomposed), s.RemoveUser(decomposed)), nil)
		if entity, user := s.admits(t, decomposed); entity || user {
			t.Errorf("%s: what was removed is admitted", name)
		}
		if name == "none wins" {
			for _, as := range []string{composed, between, reordered} {
				if entity, user := s.admits(t, as); !entity || !user {
					t.Errorf("%s: %+q after the other was removed: %v, %v", name, as, entity, user)
				}
			}
		}
	}
}

// TestSpellingsOfMarks keeps what an earlier version revoked or removed refused, in
// every spelling.
func TestSpellingsOfMarks(t *testing.T) {
	s := oldState(t, nil, nil, func(tx kv.Tx) error {
		return errors.Join(entityRoll.revoke(tx, decomposed), userRoll.revoke(tx, decomposed))
	})
	for _, name := range spelled {
		wantErr(t, s.Revoked(t.Context(), name, ""), msl.ErrMasterTokenIdentityRevoked)
		wantErr(t, s.Revoked(t.Context(), "nobody", name), msl.ErrUserIDTokenRevoked)
	}
}

// TestSpellingsOfFamilies finds the key set of a profile and the root of a suffix.
func TestSpellingsOfFamilies(t *testing.T) {
	s := oldState(t, nil, nil, nil)
	wantErr(t, s.AddEntity(EntityRecord{Identity: "cafe\u0301", Scheme: "NONE_SUFFIXED"}), nil)
	for _, name := range []string{"caf\u00e9.n\u00e9", "cafe\u0301.ne\u0301"} {
		if e, err := s.Entity(t.Context(), name); err != nil || e.Scheme != "NONE_SUFFIXED" {
			t.Errorf("%+q: %v, %v", name, e, err)
		}
	}
	wantErr(t, s.RevokeEntity("caf\u00e9"), nil)
	wantErr(t, s.Revoked(t.Context(), "cafe\u0301.ne\u0301", ""), msl.ErrMasterTokenIdentityRevoked)
}

// TestSpellingsOfClients finds the tokens that an earlier version stored.
func TestSpellingsOfClients(t *testing.T) {
	store := &kvtest.Memory{}
	err := store.Update(t.Context(), func(tx kv.Tx) error {
		return tx.Put(tableRecords, []byte(decomposed), []byte(`{"keyexchange":"x"}`))
	})
	wantErr(t, err, nil)
	for _, name := range spelled {
		c, err := NewClient(store, name)
		wantErr(t, err, nil)
		if r, err := c.Load(t.Context()); r.KeyExchange != "x" || err != nil {
			t.Errorf("%+q: %+v, %v", name, r, err)
		}
	}
}
