package balanced_test

import (
	"bytes"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
)

// A latecomer is an impostor that tells when it is examined, and waits then.
type latecomer struct {
	impostor
	asked, answer chan struct{}
	once          *sync.Once
}

func (l latecomer) Lookup(label string) ([]keystore.Version, error) {
	if label == keystore.SealingRoles()[0].Label("msl") {
		l.once.Do(func() { close(l.asked) })
		<-l.answer
	}
	return l.impostor.Lookup(label)
}

// TestLookedUpMeanwhile has a key looked up for the first time while a token is examined that
// has another one: the examination does not know of the key, and the key not of the token.
func TestLookedUpMeanwhile(t *testing.T) {
	path, one, two := softTokens(t)
	for range 2 {
		create(t, path, "mac", keystore.HMACSHA256)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	var there atomic.Bool
	two.Open = func() (keystore.Store, error) {
		if !there.Load() {
			return nil, keystore.ErrUnavailable
		}
		s, err := cheap.Open(path, []byte("pass"))
		return latecomer{impostor{s, "mac"}, asked, answer, new(sync.Once)}, err
	}
	s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
	there.Store(true)
	<-asked
	ring, err := s.Lookup("mac")
	if err != nil || len(ring) != 2 {
		t.Fatal(ring, err)
	}
	mac := ring[1].Key.(keystore.MAC)
	tag, err := mac.Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	close(answer)
	for usable := false; !usable; time.Sleep(time.Millisecond) {
		usable = s.Conditions()[1].Usable
	}
	for range 8 {
		if again, err := mac.Sum(nil); err != nil || !bytes.Equal(again, tag) {
			t.Fatalf("%x, %v, and before %x", again, err, tag)
		}
	}
	if again, err := s.Lookup("mac"); err != nil || len(again) != 2 {
		t.Errorf("looked up again: %v, %v", again, err)
	}
	for lost := false; !lost; time.Sleep(time.Millisecond) {
		lost = errors.Is(s.Conditions()[1].Why, balanced.ErrDifferent)
	}
}

// A signal is a log that tells when it has a text.
type signal struct {
	text string
	seen chan struct{}
	once sync.Once
}

func (s *signal) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(s.text)) {
		s.once.Do(func() { close(s.seen) })
	}
	return len(line), nil
}

// TestBackWithOtherKeys has a token that was lost from the start come with other keys: the
// log says why it stays away.
func TestBackWithOtherKeys(t *testing.T) {
	_, one, two := softTokens(t)
	_, other, _ := softTokens(t)
	var there atomic.Bool
	two.Open = func() (keystore.Store, error) {
		if !there.Load() {
			return nil, keystore.ErrUnavailable
		}
		return other.Open()
	}
	told := &signal{text: balanced.ErrDifferent.Error(), seen: make(chan struct{})}
	open(t, balanced.Config{Tokens: []balanced.Token{one, two}, Log: slog.New(slog.NewTextHandler(told, nil))})
	there.Store(true)
	select {
	case <-told.seen:
	case <-time.After(time.Minute):
		t.Error("nothing was logged")
	}
}

// TestPINOnce has a token refuse its PIN when it appears, and another one answer unclearly: keys are
// looked for again and again, as a peer can have them, and neither is given the PIN once more. After
// that was corrected both are used.
func TestPINOnce(t *testing.T) {
	for name, answer := range map[string]error{"refused": keystore.ErrPIN, "unclear": keystore.Unclear(keystore.ErrUnavailable)} {
		t.Run(name, func(t *testing.T) {
			_, one, two := softTokens(t)
			var there, right atomic.Bool
			given, works := make(chan struct{}, 100), two.Open
			two.Open = func() (keystore.Store, error) {
				switch {
				case !there.Load():
					return nil, keystore.ErrUnavailable
				case right.Load():
					return works()
				}
				given <- struct{}{}
				return nil, answer
			}
			s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
			there.Store(true)
			<-given
			for range 50 {
				if err := s.Refresh("mac"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			if len(given) > 5 || name == "refused" && len(given) > 0 { // pauses grow after an unclear answer
				t.Errorf("it is given the PIN %d times more", len(given))
			}
			right.Store(true)
			s.Retry()
			for !s.Conditions()[1].Usable {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestUnclearPIN has a token take the PIN without a clear answer each time that it is opened: it is
// opened after pauses that grow.
func TestUnclearPIN(t *testing.T) {
	_, one, two := softTokens(t)
	var opened atomic.Int64
	two.Open = func() (keystore.Store, error) {
		opened.Add(1)
		return nil, keystore.Unclear(keystore.ErrUnavailable)
	}
	open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
	time.Sleep(400 * time.Millisecond)
	if n := opened.Load(); n > 2 {
		t.Errorf("opened %d times", n)
	}
}
