package msl

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// How many guesses are allowed before waiting (NIST SP 800-63B, section 5.2.2).
const (
	userGuesses   = 10               // wrong guesses at a user
	entityGuesses = 10 * userGuesses // wrong guesses by an entity
	forgiveness   = time.Minute      // per wrong guess forgiven
	longestWait   = time.Hour        // before the next guess; the first wait is a second
	maxDoublings  = 12               // of a second, to exceed longestWait
)

// Limits of what is remembered. A user takes some 300 bytes, and 200 more for each entity
// that it logs in from.
const (
	maxAccounts = 10000 // most recently used, of registered names and of others each; at most twice as many
	maxFamiliar = 16    // entities that a user last logged in from
	maxWrong    = 4     // wrong messages that are recognized again
)

// A throttle limits the guesses of secrets, by the user guessed and by the entity
// guessing. A user who has logged in from an entity before has a separate count there,
// which others cannot use up. The counts end with the process ([Server.Continue]).
type throttle struct {
	now  func() time.Time
	salt [sha256.Size]byte // for the hashes of wrong messages

	mu       sync.Mutex
	known    recent[loginKey, *loginRecord] // of registered names
	unknown  recent[loginKey, *loginRecord] // of others, which displace only each other
	loggedIn recent[loginKey, *loginRecord] // of users who have logged in
}

// A loginKey is the hash of a user or entity name, which may be long.
type loginKey [sha256.Size]byte

// A loginRecord is what is known about the guesses of a user or an entity.
type loginRecord struct {
	guesses
	familiar []*familiar // entities of the user, most recent login last
}

// A familiar is an entity that the user has logged in from.
type familiar struct {
	entity loginKey
	guesses
	last [maxWrong]proof // wrong proofs, newest first
}

// Guesses counts those that were wrong or are not judged yet.
type guesses struct {
	wrong int
	from  time.Time // when the next one may be made, and forgiveness begins
}

// A proof represents the secret of a guess, in one message.
type proof [16]byte

// A guess is a claim to know the secret of a user.
type guess struct {
	from payer
	user string
	// known is whether such a user may exist. A guesser cannot tell the difference.
	known bool
	proof proof
}

func newThrottle(now func() time.Time) *throttle {
	t := &throttle{now: now}
	rand.Read(t.salt[:])
	return t
}

// proof hashes authentication data, which holds a secret, with the id of its message.
func (t *throttle) proof(messageID int64, authdata []byte) (p proof) {
	blocks := inBlocks(messageID, authdata)
	h := hmac.New(sha256.New, t.salt[:])
	h.Write(blocks)
	copy(p[:], h.Sum(nil))
	clear(blocks)
	lockedmem.ClearRegisters()
	return p
}

// inBlocks returns what is hashed, in whole blocks: a hash keeps a copy of the part of a block
// until it is garbage and written over. The caller wipes it.
func inBlocks(messageID int64, authdata []byte) []byte {
	const numbers = 16
	blocks := make([]byte, (numbers+len(authdata)+sha256.BlockSize-1)/sha256.BlockSize*sha256.BlockSize)
	binary.BigEndian.PutUint64(blocks, uint64(messageID))
	binary.BigEndian.PutUint64(blocks[numbers/2:], uint64(len(authdata)))
	copy(blocks[numbers:], authdata)
	return blocks
}

// check reports whether a guess would be judged now.
func (t *throttle) check(g *guess) error {
	if g == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refuse(t.counts(*g, t.peek))
}

// begin counts a guess, unless it has to wait. The caller passes the verdict on it to
// judged.
func (t *throttle) begin(g *guess) (judged func(error), err error) {
	if g == nil {
		return func(error) {}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Only a guess that is judged, which costs something, creates a record.
	if err := t.refuse(t.counts(*g, t.peek)); err != nil {
		return nil, err
	}
	counts := t.counts(*g, t.record)
	for _, c := range counts {
		c.add(c.most, t.now())
	}
	return func(verdict error) { t.end(*g, counts, verdict) }, nil
}

func (t *throttle) end(g guess, counts []counted, verdict error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if verdict != nil && codeOf(verdict) != ErrInternalException && !t.again(g) {
		return // wrong, as it was counted
	}
	for _, c := range counts {
		c.takeBack(c.most, t.now())
	}
	if verdict == nil {
		user := t.record(userKey(g.user), g.known)
		user.welcome(entityKey(g.from))
		t.loggedIn.put(userKey(g.user), user)
	}
}

// again reports whether the same message was already wrong, at a device that the user
// logged in from, and records it. Replaying a recorded message teaches an attacker
// nothing, and must not lock the user out there.
func (t *throttle) again(g guess) bool {
	f := t.peek(userKey(g.user), g.known).from(entityKey(g.from))
	if f == nil || slices.Contains(f.last[:], g.proof) {
		return f != nil
	}
	copy(f.last[1:], f.last[:])
	f.last[0] = g.proof
	return false
}

// A counted is one of the counts that a guess is added to.
type counted struct {
	*guesses
	most int
}

// counts finds the counts that a guess is added to.
func (t *throttle) counts(g guess, find func(loginKey, bool) *loginRecord) []counted {
	user, entity := find(userKey(g.user), g.known), entityKey(g.from)
	if f := user.from(entity); f != nil {
		return []counted{{&f.guesses, userGuesses}}
	}
	return []counted{{&user.guesses, userGuesses}, {&find(entity, g.from.registered).guesses, entityGuesses}}
}

func (t *throttle) refuse(counts []counted) error {
	var wait time.Duration
	for _, c := range counts {
		wait = max(wait, c.wait(t.now()))
	}
	if wait == 0 {
		return nil
	}
	return fmt.Errorf("%w: the next one is judged in %v", errGuesses, (wait + time.Second - 1).Truncate(time.Second))
}

var errGuesses = errors.New("too many wrong guesses")

func entityKey(p payer) loginKey { return sha256.Sum256([]byte("entity\x00" + p.name)) }

// userKey returns the key of a user, ignoring spelling variants: varying the name gives
// no additional guesses.
func userKey(name string) loginKey {
	return sha256.Sum256([]byte("user\x00" + strings.ToLower(strings.TrimSpace(name))))
}

// record returns the record of a key, making it if necessary.
func (t *throttle) record(key loginKey, known bool) *loginRecord {
	if r, ok := t.loggedIn.get(key); ok {
		return r
	}
	in := t.table(known)
	r, ok := in.get(key)
	if !ok {
		r = &loginRecord{}
		in.put(key, r)
	}
	return r
}

// peek returns the record of a key, or a new one, without storing it.
func (t *throttle) peek(key loginKey, known bool) *loginRecord {
	for _, in := range []*recent[loginKey, *loginRecord]{&t.loggedIn, t.table(known)} {
		if r, ok := in.peek(key); ok {
			return r
		}
	}
	return &loginRecord{}
}

func (t *throttle) table(known bool) *recent[loginKey, *loginRecord] {
	if known {
		return &t.known
	}
	return &t.unknown
}

func (a *loginRecord) from(entity loginKey) *familiar {
	if i := slices.IndexFunc(a.familiar, func(f *familiar) bool { return f.entity == entity }); i >= 0 {
		return a.familiar[i]
	}
	return nil
}

// welcome notes that the user logged in from an entity.
func (a *loginRecord) welcome(entity loginKey) {
	a.familiar = slices.DeleteFunc(a.familiar, func(f *familiar) bool { return f.entity == entity })
	a.familiar = append(a.familiar, &familiar{entity: entity})
	if len(a.familiar) > maxFamiliar {
		a.familiar = slices.Delete(a.familiar, 0, 1)
	}
}

// wait returns how long the next guess has to wait.
func (g *guesses) wait(now time.Time) time.Duration {
	g.forgive(now)
	return max(0, g.from.Sub(now))
}

func (g *guesses) add(most int, now time.Time) {
	g.forgive(now)
	if g.wrong == 0 {
		g.from = now
	}
	g.wrong = min(g.wrong+1, most+maxDoublings)
	if more := g.wrong - most; more >= 0 {
		g.from = now.Add(min(time.Second<<more, longestWait))
	}
}

// takeBack undoes the count of a guess that was not wrong.
func (g *guesses) takeBack(most int, now time.Time) {
	g.wrong = max(0, g.wrong-1)
	if g.wrong < most && g.from.After(now) {
		g.from = now
	}
}

func (g *guesses) forgive(now time.Time) {
	if !now.After(g.from) {
		return
	}
	n := int(now.Sub(g.from) / forgiveness)
	if n >= g.wrong {
		*g = guesses{}
		return
	}
	g.wrong -= n
	g.from = g.from.Add(time.Duration(n) * forgiveness)
}

// A recent remembers the most recently used keys: at least maxAccounts, at most twice as
// many.
type recent[K comparable, V any] struct {
	young, old map[K]V
}

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	if v, ok = r.young[key]; ok {
		return v, true
	}
	if v, ok = r.old[key]; ok {
		r.put(key, v)
	}
	return v, ok
}

// peek does not count as use.
func (r *recent[K, V]) peek(key K) (v V, ok bool) {
	if v, ok = r.young[key]; !ok {
		v, ok = r.old[key]
	}
	return v, ok
}

func (r *recent[K, V]) put(key K, v V) {
	if r.young == nil || len(r.young) >= maxAccounts {
		r.young, r.old = map[K]V{}, r.young
	}
	r.young[key] = v
}
