package state

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

// counts reports whether tokens issued in the second of t are valid, for the entity and
// for the user.
func counts(t *testing.T, s *Server, identity, user string, at time.Time) (entity, ofUser bool) {
	t.Helper()
	e, u, err := s.CountSince(t.Context(), identity, user)
	if err != nil {
		t.Fatal(err)
	}
	issued := at.Truncate(time.Second)
	return !issued.Before(e), !issued.Before(u)
}

// TestComingBack removes names and adds them again: tokens from before the removal stay
// invalid, and new ones are valid at once.
func TestComingBack(t *testing.T) {
	pass := []byte("a password")
	for name, again := range map[string]func(*Server) (user bool, err error){
		"entity": func(s *Server) (bool, error) {
			return false, first(s.RemoveEntity("a"), s.AddEntity(pskEntity("a")))
		},
		"revoked entity": func(s *Server) (bool, error) {
			return false, first(s.RevokeEntity("a"), s.RemoveEntity("a"), s.UnrevokeEntity("a"), s.AddEntity(pskEntity("a")))
		},
		"user": func(s *Server) (bool, error) {
			return true, first(s.RemoveUser("ann"), s.AddUser("ann", pass))
		},
		"password": func(s *Server) (bool, error) { return true, s.SetPassword("ann", []byte("another")) },
		"password of a revoked user": func(s *Server) (bool, error) {
			return true, first(s.RevokeUser("ann"), s.SetPassword("ann", []byte("another")), s.UnrevokeUser("ann"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				wantErr(t, first(s.AddEntity(pskEntity("a")), s.AddUser("ann", pass)), nil)
				time.Sleep(1500 * time.Millisecond)
				issued := time.Now()
				if e, u := counts(t, s, "a", "ann", issued); !e || !u {
					t.Error("the first tokens do not count")
				}
				isUser, err := again(s)
				wantErr(t, err, nil)
				for range 2 {
					e, u := counts(t, s, "a", "ann", issued)
					if e == !isUser || u == isUser {
						t.Errorf("tokens of before count: entity %v, user %v", e, u)
					}
					if e, u := counts(t, s, "a", "ann", time.Now()); !e || !u {
						t.Error("tokens of now do not count")
					}
					wantErr(t, s.Revoked(t.Context(), "a", "ann"), nil)
					s = reopen(t, s)
				}
				s.StopPruning()
			})
		})
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestComingBackFromEarlier adds names removed by an earlier version, whose marks do
// not say since when tokens count.
func TestComingBackFromEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		removed := time.Now()
		err := s.store.Update(t.Context(), func(tx kv.Tx) error {
			return tx.Put(tableUserMarks, []byte("ann"), mark{removed: true, since: removed}.encode())
		})
		wantErr(t, err, nil)
		time.Sleep(time.Hour)
		wantErr(t, s.AddUser("ann", []byte("a password")), nil)
		if _, u := counts(t, s, "a", "ann", removed); u {
			t.Error("a token of before the removal counts")
		}
		s.StopPruning()
	})
}

// TestReplaceKeepsTokens registers a device anew, as its enrollment does.
func TestReplaceKeepsTokens(t *testing.T) {
	s := newServer(t)
	issued := time.Now()
	wantErr(t, s.ReplaceEntity(pskEntity("a")), nil)
	wantErr(t, s.ReplaceEntity(pskEntity("a")), nil)
	if e, _ := counts(t, s, "a", "", issued); !e {
		t.Error("the tokens ended")
	}
	wantErr(t, s.RevokeEntity("a"), nil)
	wantErr(t, s.ReplaceEntity(pskEntity("a")), ErrRevoked)
	if list, err := s.Entities(); err != nil || len(list) != 1 || list[0].Scheme == "" {
		t.Errorf("the refused change took the record away: %v, %v", list, err)
	}
}

// TestFamilyComesBack uses an identity that another record covers.
func TestFamilyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		e := pskEntity("a")
		e.Scheme = "PSK_PROFILE"
		wantErr(t, s.AddEntity(e), nil)
		issued := time.Now()
		wantErr(t, first(s.RemoveEntity("a"), s.AddEntity(e)), nil)
		for identity, want := range map[string]bool{"a-b": false, "a-b-c": false, "a": false, "a.b": true, "ab": true, "b-a": true} {
			if e, _ := counts(t, s, identity, "", issued); e != want {
				t.Errorf("old tokens of %q count: %v, want %v", identity, e, want)
			}
		}
		s.StopPruning()
	})
}

func TestSetPassword(t *testing.T) {
	s := newServer(t)
	wantErr(t, s.SetPassword("ann", []byte("x")), ErrUnknown)
	wantErr(t, s.AddUser("ann", []byte("old")), nil)
	before, err := s.Users()
	wantErr(t, err, nil)
	if s.SetPassword("ann", []byte(" ")) == nil {
		t.Error("a blank password is accepted")
	}
	wantErr(t, s.SetPassword("ann", []byte("new")), nil)
	s = reopen(t, s)
	_, err = s.Verify(t.Context(), "ann", []byte("old"))
	wantErr(t, err, msl.ErrEmailPasswordIncorrect)
	_, err = s.Verify(t.Context(), "ann", []byte("new"))
	wantErr(t, err, nil)
	after, err := s.Users()
	wantErr(t, err, nil)
	if len(after) != 1 || after[0] != before[0] {
		t.Errorf("the user became %+v, was %+v", after, before)
	}
	wantErr(t, s.RemoveUser("ann"), nil)
	wantErr(t, s.SetPassword("ann", []byte("x")), ErrUnknown)
}

// TestRestartByASlowClock ends tokens by a server whose clock is behind that of the one that
// did so before: those that counted since then end, too.
func TestRestartByASlowClock(t *testing.T) {
	pass := []byte("a password")
	for name, again := range map[string]func(*Server) error{
		"entity":   func(s *Server) error { return first(s.RemoveEntity("a"), s.AddEntity(pskEntity("a"))) },
		"password": func(s *Server) error { return s.SetPassword("ann", pass) },
		"user":     func(s *Server) error { return first(s.RemoveUser("ann"), s.AddUser("ann", pass)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				wantErr(t, first(s.AddEntity(pskEntity("a")), s.AddUser("ann", pass)), nil)
				ahead := mark{counts: time.Now().Add(30 * time.Second)}
				wantErr(t, s.Directory.update(t.Context(), "test", func(tx kv.Tx) error {
					return first(entityRoll.setMark(tx, "a", ahead), userRoll.setMark(tx, "ann", ahead))
				}), nil)
				wantErr(t, again(s), nil)
				if e, u := counts(t, s, "a", "ann", ahead.counts); e && u {
					t.Error("tokens of before count")
				}
			})
		})
	}
}
