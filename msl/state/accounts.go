package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/stretch"

	"github.com/msl-hsm/msl-hsm/msl"
)

const (
	saltSize = 16
	hashSize = 32
)

// A password is the stored form of a user's password.
type password struct {
	Argon2id stretch.Cost `json:"argon2id,omitzero"` // one of both, so that it can be raised
	PBKDF2   stretch.Cost `json:"pbkdf2,omitzero"`
	Salt     []byte       `json:"salt"`
	Hash     []byte       `json:"hash"`
	Created  time.Time    `json:"created"` // of the user
}

func hashPassword(cost stretch.Cost, pass []byte, created time.Time) password {
	p := password{Salt: make([]byte, saltSize), Created: created}.at(cost)
	rand.Read(p.Salt)
	p.Hash = p.hash(pass)
	return p
}

// at returns the password with a cost.
func (p password) at(cost stretch.Cost) password {
	if cost.Approved() {
		p.PBKDF2 = cost
	} else {
		p.Argon2id = cost
	}
	return p
}

func (p password) cost() stretch.Cost { return cmp.Or(p.Argon2id, p.PBKDF2) }

func (p password) hash(pass []byte) []byte { return p.cost().Key(pass, p.Salt) }

func (p password) matches(pass []byte) bool {
	return subtle.ConstantTimeCompare(p.hash(pass), p.Hash) == 1
}

func decodePassword(payload []byte) (p password, err error) {
	if err := kv.DecodeJSON(payload, &p); err != nil {
		return p, err
	}
	if !p.cost().Possible() || len(p.Salt) != saltSize || len(p.Hash) != hashSize {
		return p, fmt.Errorf("%w: a password hash is out of bounds", ErrDamaged)
	}
	return p, nil
}

// Accounts are the users that a server knows, with their passwords.
type Accounts struct {
	records
	hashing *hashing
	users   roster
	cost    stretch.Cost // of new passwords
}

// A UserRecord is a user as listed.
type UserRecord struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created,omitzero"`
	Revoked bool      `json:"revoked,omitempty"`
	Removed bool      `json:"removed,omitempty"`
	Since   time.Time `json:"since,omitzero"` // when it was revoked or removed
}

// AddUser registers a user under its login name, an e-mail address. The password is
// stored as a hash; the caller must wipe it. A removed user can be added again, but its
// earlier tokens stay invalid; within the second of the removal, AddUser waits for the
// next second. A registered user is [ErrExists], a revoked one [ErrRevoked].
func (a *Accounts) AddUser(name string, pass []byte) error {
	if err := checkName("user", name); err != nil {
		return err
	}
	if strings.TrimSpace(name) != name {
		return fmt.Errorf("state: the name of the user %w: it begins or ends with a space", ErrName)
	}
	payload, err := a.encodePassword(pass, time.Now().UTC().Truncate(time.Second))
	if err != nil {
		return err
	}
	return a.returning("add", a.users, name, func(tx kv.Tx) error {
		return a.users.change(tx, name, func(tx kv.Tx, key string) error { return userRoll.add(tx, key, payload) })
	})
}

func (a *Accounts) encodePassword(pass []byte, created time.Time) ([]byte, error) {
	if len(bytes.TrimSpace(pass)) == 0 {
		return nil, errors.New("state: a password must not be blank")
	}
	if err := a.hashing.enter(context.Background()); err != nil {
		return nil, err
	}
	defer a.hashing.leave()
	payload, err := json.Marshal(hashPassword(a.cost, pass, created))
	if err != nil {
		return nil, fmt.Errorf("state: keep password: %w", err)
	}
	return payload, nil
}

// SetPassword changes the password of a user and invalidates its tokens. It returns
// when a login with the new password yields valid tokens, which may take until the next
// second. A user that is not registered is [ErrUnknown].
func (a *Accounts) SetPassword(name string, pass []byte) error {
	payload, err := a.encodePassword(pass, time.Time{})
	if err != nil {
		return err
	}
	at, err := a.moment(context.Background())
	if err != nil {
		return err
	}
	return a.returning("change password", a.users, name, func(tx kv.Tx) error {
		return a.users.change(tx, name, func(tx kv.Tx, key string) error { return replacePassword(tx, key, payload, at) })
	})
}

// replacePassword stores another password for a user, whose tokens issued before a moment end.
func replacePassword(tx kv.Tx, name string, payload []byte, at time.Time) error {
	old, err := tx.Get(tableUsers, []byte(name))
	if err != nil {
		return err
	}
	if old == nil {
		return userRoll.unknown(name)
	}
	changed, err := keepCreated(old, payload)
	if err != nil {
		return err
	}
	if err := userRoll.begin(tx, name, at); err != nil {
		return err
	}
	return tx.Put(tableUsers, []byte(name), changed)
}

// keepCreated returns a new password record with the creation time of the old one.
func keepCreated(old, payload []byte) ([]byte, error) {
	was, err := decodePassword(old)
	if err != nil {
		return nil, err
	}
	p, err := decodePassword(payload)
	if err != nil {
		return nil, err
	}
	p.Created = was.Created
	return json.Marshal(p)
}

// RemoveUser removes a user and leaves a mark, so that its tokens are refused. A user
// that is not registered is [ErrUnknown].
func (a *Accounts) RemoveUser(name string) error {
	return a.changeAt("remove", a.users, name, userRoll.drop)
}

// RevokeUser marks a user as revoked, until [Accounts.UnrevokeUser]. The user need not be
// registered: applications have users unknown to this state.
func (a *Accounts) RevokeUser(name string) error {
	if err := checkName("user", name); err != nil {
		return err
	}
	return a.update(context.Background(), "revoke", func(tx kv.Tx) error { return a.users.change(tx, name, userRoll.revoke) })
}

// UnrevokeUser lifts a revocation. A user that was removed stays removed. If its tokens count
// only from a time ahead of all clocks, because one was wrong, they count from now on.
func (a *Accounts) UnrevokeUser(name string) error {
	return a.changeAt("unrevoke", a.users, name, userRoll.unrevoke)
}

// Users lists the registered users by name, followed by names that are only marked as
// revoked or removed.
func (a *Accounts) Users() ([]UserRecord, error) {
	var list []UserRecord
	err := a.recall(context.Background(), "list users", func(tx kv.Reader) error {
		list = nil
		return userRoll.each(tx, func(name string, payload []byte, m mark) error {
			p, err := decodePassword(payload)
			list = append(list, UserRecord{Name: name, Created: p.Created, Revoked: m.revoked, Since: m.since})
			return err
		}, func(name string, m mark) {
			list = append(list, UserRecord{Name: name, Revoked: m.revoked, Removed: m.removed, Since: m.since})
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// PasswordCost sets the cost of checking a password; the default is the second
// recommended option of RFC 9106, or PBKDF2 in the FIPS mode of Go. A user's password
// gets the new cost when it is set, and at the next login. The cost must be possible, see
// [stretch.Cost.Possible]. PasswordCost must not be called after the first use of a
// password.
func (a *Accounts) PasswordCost(cost stretch.Cost) { a.cost = cost }

// PasswordsAtATime sets how many passwords are hashed concurrently; zero means 4. Each
// takes the memory of its cost, by default 64 MiB, and up to twice the total is in use
// before memory is released. It must not be called after the first Verify.
func (a *Accounts) PasswordsAtATime(n int) {
	if n > 0 {
		a.hashing = newHashing(n)
	}
}

// FindUser returns email if it is the name of a user who may log in, or "" if the user
// is unknown or revoked.
func (a *Accounts) FindUser(ctx context.Context, email string) (user string, err error) {
	if _, known, err := a.password(ctx, email); err != nil || !known {
		return "", err
	}
	return msl.CanonicalName(email), nil
}

// Verify returns the name of the user with that e-mail address and password. It returns
// [msl.ErrEmailPasswordIncorrect] if the user is unknown or revoked or the password is
// wrong, in about the same time. A few passwords are hashed at a time; other calls wait
// for their turn or until ctx ends.
func (a *Accounts) Verify(ctx context.Context, email string, pass []byte) (user string, err error) {
	if err := a.hashing.enter(ctx); err != nil {
		return "", err
	}
	defer a.hashing.leave()
	p, known, err := a.password(ctx, email)
	if err != nil {
		return "", err
	}
	if !p.matches(pass) || !known {
		return "", msl.ErrEmailPasswordIncorrect
	}
	if p.cost() != a.cost {
		a.rehash(email, p, pass)
	}
	return msl.CanonicalName(email), nil
}

// password finds the password of a user who may log in. For any other name it returns a
// dummy to check, at the same cost.
func (a *Accounts) password(ctx context.Context, name string) (p password, known bool, err error) {
	err = a.recall(ctx, "find user", func(tx kv.Reader) error {
		known = false
		key, apart, err := a.users.find(tx, name)
		if err != nil {
			return err
		}
		payload, err := tx.Get(tableUsers, []byte(key))
		if err != nil {
			return err
		}
		if payload == nil || apart {
			p = password{Salt: make([]byte, saltSize), Hash: make([]byte, hashSize)}.at(a.costLike(tx, name))
			return nil
		}
		if p, err = decodePassword(payload); err != nil {
			return err
		}
		m, err := userRoll.mark(tx, key)
		known = err == nil && !m.refuses()
		return err
	})
	return p, known, err
}

// costLike returns the cost for checking an unknown name, which is that of the next
// user by name. If the costs of only some users have been raised, a fixed cost would
// reveal who is known.
func (a *Accounts) costLike(tx kv.Reader, name string) stretch.Cost {
	next, err := tx.Range(tableUsers, []byte(name), nil, 1)
	if err == nil && len(next) == 0 {
		next, err = tx.Range(tableUsers, nil, nil, 1)
	}
	if err != nil || len(next) == 0 {
		return a.cost
	}
	if p, err := decodePassword(next[0].Value); err == nil {
		return p.cost()
	}
	return a.cost
}

// rehash stores a password under the current cost, unless it was changed or removed in
// the meantime. A failure does not affect the user.
func (a *Accounts) rehash(name string, old password, pass []byte) {
	a.hashing.garbage.Add(1) // of the preceding check
	payload, err := json.Marshal(hashPassword(a.cost, pass, old.Created))
	if err != nil {
		return
	}
	_ = a.update(context.Background(), "keep a password", func(tx kv.Tx) error {
		key, err := a.users.key(tx, name)
		if err != nil {
			return err
		}
		kept, err := tx.Get(tableUsers, []byte(key))
		if err != nil || kept == nil {
			return err
		}
		if p, err := decodePassword(kept); err != nil || !bytes.Equal(p.Hash, old.Hash) {
			return err
		}
		return tx.Put(tableUsers, []byte(key), payload)
	})
}
