package msl

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A guesser guesses by a clock of its own.
type guesser struct {
	*testing.T
	throttle *throttle
	now      time.Time
	tried    uint64 // secrets: each is another one
}

func newGuesser(t *testing.T) *guesser {
	g := &guesser{T: t, now: time.Unix(1700000000, 0)}
	g.throttle = newThrottle(func() time.Time { return g.now })
	return g
}

// try makes a guess, and reports whether it was judged.
func (g *guesser) try(entity, user string, verdict error) bool {
	g.tried++
	return g.trySecret(entity, user, fmt.Sprint(g.tried), verdict)
}

func (g *guesser) trySecret(entity, user, secret string, verdict error) bool {
	q := &guess{from: payer{entity, true}, user: user, known: !strings.HasPrefix(user, "no"), proof: g.throttle.proof(1, []byte(secret))}
	if g.throttle.check(q) != nil {
		return false
	}
	judged, err := g.throttle.begin(q)
	if err != nil {
		if codeOf(err) != ErrInternalException {
			g.Errorf("refused with %v", err)
		}
		return false
	}
	judged(verdict)
	return true
}

func (g *guesser) wants(want bool, entity, user string, verdict error) {
	g.Helper()
	if g.try(entity, user, verdict) != want {
		g.Errorf("%s guesses the password of %s: judged %v", entity, user, !want)
	}
}

const wrong = ErrEmailPasswordIncorrect

// The wait after ten wrong guesses is a second, and doubles up to an hour; a guess
// that is refused does not prolong it.
func TestGuessesWait(t *testing.T) {
	for _, user := range []string{"ann", "nobody"} {
		g := newGuesser(t)
		for range userGuesses {
			g.wants(true, "device", user, wrong)
		}
		for wait := time.Second; wait < 5*time.Hour; wait *= 2 {
			g.wants(false, "device", user, nil)
			g.now = g.now.Add(min(wait, time.Hour) - time.Second/1000)
			g.wants(false, "other", user, nil)
			g.now = g.now.Add(time.Second / 1000)
			g.wants(true, "device", user, wrong)
		}
		g.now = g.now.Add(time.Hour)
		g.wants(true, "device", user, nil)
	}
}

// One guess is forgiven each minute, whether or not others are made.
func TestGuessesAreForgiven(t *testing.T) {
	g := newGuesser(t)
	for range userGuesses - 1 {
		g.wants(true, "device", "ann", wrong)
	}
	for range 20 {
		g.now = g.now.Add(forgiveness / 2)
		g.now = g.now.Add(forgiveness / 2)
		g.wants(true, "device", "ann", wrong)
		if n := g.throttle.peek(userKey("ann"), true).wrong; n != userGuesses-1 {
			t.Fatalf("%d guesses count", n)
		}
	}
	g.wants(true, "device", "ann", wrong)
	g.wants(false, "device", "ann", wrong)
	g.now = g.now.Add(time.Second + userGuesses*forgiveness)
	for range userGuesses {
		g.wants(true, "device", "ann", wrong)
	}
	g.wants(false, "device", "ann", wrong)
}

// A check that failed, or a correct proof, does not count as a wrong guess.
func TestOnlyWrongGuessesCount(t *testing.T) {
	g := newGuesser(t)
	for range 1000 {
		g.wants(true, "device", "ann", errors.New("the database is down"))
		g.wants(true, "device", "bob", Failure(ErrInternalException, "", nil))
		g.wants(true, "device", "cat", nil)
	}
}

// An entity has ten times as many, for all users together.
func TestGuessesOfEntity(t *testing.T) {
	g := newGuesser(t)
	for i := range entityGuesses {
		g.wants(true, "device", fmt.Sprint("user", i), wrong)
	}
	g.wants(false, "device", "ann", nil)
	g.wants(true, "other", "ann", nil)
	g.now = g.now.Add(time.Second)
	g.wants(true, "device", "ann", nil)
}

// A user who logged in from an entity before is not locked out there by others, and has
// no more guesses there than anyone else.
func TestFamiliarEntities(t *testing.T) {
	g := newGuesser(t)
	g.wants(true, "home", "ann", nil)
	for range 5 * userGuesses {
		g.try("elsewhere", "ann", wrong)
	}
	for i := range 2 * entityGuesses {
		g.try("home", fmt.Sprint("user", i), wrong)
	}
	g.wants(false, "home", "bob", nil)
	g.wants(false, "new", "ann", nil)
	g.wants(true, "home", "ann", nil)
	for range userGuesses {
		g.wants(true, "home", "ann", wrong)
	}
	g.wants(false, "home", "ann", nil)
}

// The name of a user is one, however it is spelled.
func TestSpellingsOfUsers(t *testing.T) {
	g := newGuesser(t)
	for i := range userGuesses {
		g.wants(true, "device", []string{"ann@x.org", "Ann@x.org", " ANN@X.ORG "}[i%3], wrong)
	}
	g.wants(false, "device", "aNN@x.org", nil)
}

// Guesses that are judged at the same time count before their verdict.
func TestGuessesAtOnce(t *testing.T) {
	g := newGuesser(t)
	var verdicts []func(error)
	for i := range 50 {
		if judged, err := g.throttle.begin(&guess{from: payer{"device", true}, user: "ann", proof: proof{byte(i + 1)}}); err == nil {
			verdicts = append(verdicts, judged)
		}
	}
	if len(verdicts) != userGuesses {
		t.Errorf("%d are judged at once", len(verdicts))
	}
	for _, judged := range verdicts[1:] {
		judged(wrong)
	}
	verdicts[0](nil)
	if n := g.throttle.peek(userKey("ann"), false).wrong; n != userGuesses-1 {
		t.Errorf("%d guesses count", n)
	}
}

// The memory is bounded, and made-up names do not push out those of users.
func TestThrottleIsBounded(t *testing.T) {
	SkipWithRace(t)
	g := newGuesser(t)
	for range userGuesses {
		g.wants(true, "device", "ann", wrong)
	}
	g.wants(true, "home", "bob", nil)
	for i := range 5 * maxAccounts {
		name := fmt.Sprint("made up ", i)
		if judged, err := g.throttle.begin(&guess{from: payer{name: name}, user: name, proof: g.throttle.proof(1, []byte(name))}); err == nil {
			judged(wrong)
		}
	}
	g.wants(false, "device", "ann", nil)
	for i := range 1000 {
		g.wants(true, fmt.Sprint("device", i), "bob", nil)
	}
	if n := len(g.throttle.peek(userKey("bob"), true).familiar); n != maxFamiliar {
		t.Errorf("bob is familiar with %d entities", n)
	}
	for name, in := range map[string]*recent[loginKey, *loginRecord]{"logged in": &g.throttle.loggedIn, "known": &g.throttle.known, "unknown": &g.throttle.unknown} {
		if n := len(in.young) + len(in.old); n > 2*maxAccounts {
			t.Errorf("%d %s accounts", n, name)
		}
	}
}

// Refused messages, which cost nothing, make no record and push out none. So they neither
// reveal which names are registered nor remove a count.
func TestRefusedGuessesLeaveNothing(t *testing.T) {
	SkipWithRace(t)
	for _, user := range []string{"ann", "nobody"} {
		g := newGuesser(t)
		g.wants(true, "home", "bob", nil)
		for range userGuesses {
			g.wants(true, "device", user, wrong)
		}
		for i := range 3 * maxAccounts {
			g.try("other", fmt.Sprint(user, i), wrong) // 100 are judged
		}
		g.wants(false, "device", user, wrong)
		if n := len(g.throttle.known.young) + len(g.throttle.unknown.young); n > entityGuesses+10 {
			t.Errorf("%d records", n)
		}
	}
}

// Users who logged in are remembered whoever else is guessed.
func TestFamiliarIsKept(t *testing.T) {
	SkipWithRace(t)
	g := newGuesser(t)
	g.wants(true, "home", "ann", nil)
	for range userGuesses {
		g.wants(true, "device", "ann", wrong)
	}
	for i := range 3 * maxAccounts {
		g.try(fmt.Sprint("device", i), fmt.Sprint("made up ", i), wrong)
	}
	g.wants(false, "device", "ann", wrong)
	g.wants(true, "home", "ann", wrong)
}

// A wrong message that comes again from a device that the user logged in from counts
// once: an attacker who recorded it cannot lock the user out there.
func TestWrongMessageAgain(t *testing.T) {
	g := newGuesser(t)
	g.wants(true, "home", "ann", nil)
	for range 5 * userGuesses {
		if !g.trySecret("home", "ann", "typing error", wrong) {
			t.Fatal("not judged")
		}
	}
	g.wants(true, "home", "ann", nil)
	for range userGuesses {
		g.try("home", "ann", wrong)
	}
	if g.trySecret("home", "ann", "typing error", wrong) {
		t.Error("judged while others have to wait")
	}
	for range 2 * userGuesses {
		g.trySecret("other", "ann", "typing error", wrong)
	}
	g.wants(false, "other", "ann", wrong)
}

// TestInBlocks hashes different messages differently, and no part of a block.
func TestInBlocks(t *testing.T) {
	seen := map[string]bool{}
	for id := range int64(2) {
		for n := range 200 {
			b := inBlocks(id, make([]byte, n))
			if len(b)%sha256.BlockSize != 0 || cap(b) > 2*len(b) || seen[string(b)] {
				t.Errorf("%d bytes of message %d: %x", n, id, b)
			}
			seen[string(b)] = true
		}
	}
}
