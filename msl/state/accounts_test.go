package state

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

func TestVerify(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"ann@example.com", "bob@example.com", "cat@example.com"} {
		if err := s.AddUser(name, []byte("correct horse")); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, s.RevokeUser("bob@example.com"), nil)
	wantErr(t, s.RemoveUser("cat@example.com"), nil)
	s = reopen(t, s)
	for _, c := range []struct {
		email, password string
		want            error
	}{
		{"ann@example.com", "correct horse", nil},
		{"ann@example.com", "correct horse ", msl.ErrEmailPasswordIncorrect},
		{"ann@example.com", "", msl.ErrEmailPasswordIncorrect},
		{"Ann@example.com", "correct horse", msl.ErrEmailPasswordIncorrect},
		{"bob@example.com", "correct horse", msl.ErrEmailPasswordIncorrect},
		{"cat@example.com", "correct horse", msl.ErrEmailPasswordIncorrect},
		{"dan@example.com", "correct horse", msl.ErrEmailPasswordIncorrect},
		{"", "", msl.ErrEmailPasswordIncorrect},
		{strings.Repeat("x", 1<<17), "correct horse", msl.ErrEmailPasswordIncorrect},
	} {
		user, err := s.Verify(t.Context(), c.email, []byte(c.password))
		if err != c.want || err == nil && user != c.email || err != nil && user != "" {
			t.Errorf("Verify(%.20q, %q) = %q, %v, want %v", c.email, c.password, user, err, c.want)
		}
	}
}

func TestUserLife(t *testing.T) {
	s := newServer(t)
	pass := []byte("correct horse")
	wantErr(t, s.RemoveUser("ann"), ErrUnknown)
	wantErr(t, s.AddUser("ann", pass), nil)
	wantErr(t, s.AddUser("ann", pass), ErrExists)
	wantErr(t, s.RemoveUser("ann"), nil)
	wantErr(t, s.AddUser("ann", []byte("another one")), nil)
	if _, err := s.Verify(t.Context(), "ann", pass); err != msl.ErrEmailPasswordIncorrect {
		t.Errorf("old password: %v", err)
	}
	wantErr(t, s.RevokeUser("ann"), nil)
	wantErr(t, s.RemoveUser("ann"), nil)
	wantErr(t, s.AddUser("ann", pass), ErrRevoked)
	wantErr(t, s.UnrevokeUser("ann"), nil)
	wantErr(t, s.AddUser("ann", pass), nil)
	wantErr(t, s.RevokeUser("eve"), nil)
	list, err := s.Users()
	if err != nil || len(list) != 2 || list[0].Name != "ann" || list[0].Revoked || list[0].Created.IsZero() ||
		list[1].Name != "eve" || !list[1].Revoked || list[1].Removed {
		t.Errorf("list %+v, %v", list, err)
	}
	for name, pass := range map[string]string{"": "x", " ann": "x", "a\nb": "x", "\xff": "x", "dan": " \t"} {
		if s.AddUser(name, []byte(pass)) == nil {
			t.Errorf("AddUser(%q, %q) is accepted", name, pass)
		}
	}
}

func (s *Server) costOf(t *testing.T, name string) stretch.Cost {
	t.Helper()
	p, known, err := s.password(t.Context(), name)
	if err != nil || !known {
		t.Fatalf("user %q: %v, %v", name, known, err)
	}
	return p.cost()
}

// TestRehash raises the cost: a record is updated at the next successful login.
func TestRehash(t *testing.T) {
	s := newServer(t)
	pass := []byte("correct horse")
	wantErr(t, s.AddUser("ann", pass), nil)
	s.cost = stretch.Cost{Time: 2, Memory: 128, Threads: 2}
	if _, err := s.Verify(t.Context(), "ann", []byte("wrong")); err == nil || s.costOf(t, "ann") != cheap {
		t.Errorf("a wrong password: %v, cost %v", err, s.costOf(t, "ann"))
	}
	for range 2 {
		if _, err := s.Verify(t.Context(), "ann", pass); err != nil || s.costOf(t, "ann") != s.cost {
			t.Errorf("%v, cost %v", err, s.costOf(t, "ann"))
		}
	}
	old, _, _ := s.password(t.Context(), "ann")
	wantErr(t, s.RemoveUser("ann"), nil)
	s.rehash("ann", old, pass) // as if it was removed during the login
	if _, err := s.Verify(t.Context(), "ann", pass); err != msl.ErrEmailPasswordIncorrect {
		t.Errorf("a removed user came back: %v", err)
	}
}

// TestOtherFunction has the function change, as in FIPS mode, and back.
func TestOtherFunction(t *testing.T) {
	s := newServer(t)
	pass := []byte("correct horse")
	wantErr(t, s.AddUser("ann", pass), nil)
	for _, cost := range []stretch.Cost{{Iterations: 1000}, cheap, {Iterations: 2000}} {
		s.PasswordCost(cost)
		for range 2 {
			if _, err := s.Verify(t.Context(), "ann", []byte("wrong")); err != msl.ErrEmailPasswordIncorrect {
				t.Errorf("a wrong password: %v", err)
			}
			if _, err := s.Verify(t.Context(), "ann", pass); err != nil || s.costOf(t, "ann") != cost {
				t.Errorf("%v, cost %v, want %v", err, s.costOf(t, "ann"), cost)
			}
		}
		if _, err := s.Verify(t.Context(), "eve", pass); err != msl.ErrEmailPasswordIncorrect {
			t.Errorf("an unknown user: %v", err)
		}
	}
}

func TestRecommendedCost(t *testing.T) {
	s := newServer(t)
	s.cost = stretch.Recommended()
	wantErr(t, s.AddUser("ann", []byte("correct horse")), nil)
	if _, err := s.Verify(t.Context(), "ann", []byte("correct horse")); err != nil {
		t.Error(err)
	}
}

func TestVerifyWaits(t *testing.T) {
	s := newServer(t)
	for range passwordsAtATime {
		wantErr(t, s.hashing.enter(t.Context()), nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Verify(ctx, "ann", nil)
		done <- err
	}()
	cancel()
	err := <-done
	var code msl.Code
	if !errors.Is(err, context.Canceled) || errors.As(err, &code) {
		t.Errorf("error %v", err)
	}
}

// TestPasswordIsNotKept searches the file for the password.
func TestPasswordIsNotKept(t *testing.T) {
	s, db := inFile(t)
	wantErr(t, s.AddUser("ann", []byte("correct horse")), nil)
	var file strings.Builder
	wantErr(t, db.Snapshot(&file), nil)
	if !strings.Contains(file.String(), "argon2id") || strings.Contains(file.String(), "correct horse") {
		t.Error("the file has the password")
	}
}
