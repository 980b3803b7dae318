package state

import (
	"context"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// The tables of a server.
const (
	tableEntities    = "entities"     // by identity
	tableEntityMarks = "entity marks" // by identity
	tableUsers       = "users"        // by name
	tableUserMarks   = "user marks"   // by name
	tableIDs         = "ids"          // by identity and serial number
	tableSequences   = "sequences"    // by identity and serial number
)

// ServerTables returns the tables that the store of a [Server] has.
func ServerTables() []string {
	return append(LastingTables(), TokenTables()...)
}

// TokenTables returns those of the [ServerTables] that record how tokens were used. They
// change with every non-replayable message, and no other table depends on them.
func TokenTables() []string { return []string{tableIDs, tableSequences} }

// LastingTables returns those of the [ServerTables] with the registered names and their
// marks, which stay until they are changed or removed.
func LastingTables() []string {
	return []string{tableEntities, tableEntityMarks, tableUsers, tableUserMarks}
}

// A Server is the state of a server. It is safe for concurrent use.
type Server struct {
	records
	*Directory
	*Accounts
	*Tokens
	pruning pruning
	aging   *aging
	clocks
}

var (
	_ msl.State     = (*Server)(nil)
	_ msl.Directory = (*Server)(nil)

	_ msl.TokenDates = (*Server)(nil)
	_ msl.Forgetter  = (*Server)(nil)
)

// beganKey is a key in the settings: tokens issued before that time do not count.
const beganKey = "began"

// NewServer returns the state in a store. The store must have the [ServerTables]; the
// caller closes it. An unreadable setting is [ErrDamaged].
func NewServer(store kv.Store) (*Server, error) {
	r := records{store}
	s := &Server{
		records:   r,
		Directory: &Directory{records: r},
		Accounts:  &Accounts{records: r, hashing: newHashing(passwordsAtATime), cost: stretch.Recommended()},
		Tokens:    &Tokens{records: r},
		aging:     newAging(r),
	}
	return s, store.View(context.Background(), s.readSettings)
}

func (s *Server) readSettings(tx kv.Reader) (err error) {
	if err := kv.Copied(tx); err != nil {
		return err
	}
	if s.entities, err = readRoster(tx, entityRoll); err != nil {
		return err
	}
	if s.users, err = readRoster(tx, userRoll); err != nil {
		return err
	}
	if s.keeps.all, err = readKeeps(tx); err != nil {
		return err
	}
	_, err = readBegan(tx)
	return err
}

// readBegan returns the time from which the tokens of all names count, or the zero time.
func readBegan(tx kv.Reader) (time.Time, error) { return readTime(tx, beganKey) }

// readTime returns a time in the settings, or the zero time.
func readTime(tx kv.Reader, key string) (time.Time, error) {
	b, err := tx.Get(kv.Settings, []byte(key))
	if err != nil || b == nil {
		return time.Time{}, err
	}
	n, err := decodeInts(b, 1)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(n[0], 0), nil
}

// Present returns what a change takes for the present: a time by which every token was issued
// that exists. If servers share the state, it is later than their clocks, whatever the clock here
// says; otherwise it is the time here.
func (s *Server) Present(ctx context.Context) (time.Time, error) { return s.moment(ctx) }

// UsedUntil checks that a state was not used after the time at which its tokens are to end.
// Otherwise newer tokens may exist, and the error is [ErrClockBehind].
func UsedUntil(ctx context.Context, s *Server, at time.Time) error {
	var last time.Time
	err := s.view(ctx, "find when the state was used last", func(tx kv.Reader) error {
		var sum Summary
		c, err := readChronicle(tx)
		if err == nil {
			err = countTokens(tx, &sum)
		}
		last = later(c.looked, sum.Latest)
		return err
	})
	if err == nil && last.Sub(at) > mostApart {
		err = fmt.Errorf("state: the state was used at %s, and it is %s here, so newer tokens would not end: %w",
			last.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), ErrClockBehind)
	}
	return err
}

// EndTokens invalidates every token issued until at, for every [Server] of the store: see
// [Server.Present]. It returns when newly issued tokens are valid, which may take until the next
// second.
func EndTokens(store kv.Store, at time.Time) error {
	began := secondAfter(at)
	err := records{store}.update(context.Background(), "end all tokens", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(beganKey), encodeInts(seconds(began)))
	})
	if err == nil {
		time.Sleep(min(time.Second, time.Until(began)))
	}
	return err
}

// Revoked implements msl.State. A removed entity or user counts as revoked until it is
// added again, since its tokens may still be valid. A name that was never registered
// here is not revoked: other schemes know entities, and applications know users, that
// this state does not. Revoking a PSK_PROFILE key set also revokes the identities of
// all its profiles, and revoking a NONE_SUFFIXED root those of all its suffixes.
func (s *Server) Revoked(ctx context.Context, identity, user string) error {
	return s.recall(ctx, "check revocation", func(tx kv.Reader) error {
		_, gone, err := s.entities.mark(tx, identity)
		if err == nil && !gone {
			gone, err = s.familyRefused(tx, identity)
		}
		if err != nil {
			return err
		}
		if gone {
			return msl.ErrMasterTokenIdentityRevoked
		}
		if user == "" {
			return nil
		}
		if _, gone, err = s.users.mark(tx, user); err == nil && gone {
			err = msl.ErrUserIDTokenRevoked
		}
		return err
	})
}

// CountSince implements msl.TokenDates. The time is the latest of these: the last
// removal, for a name that was added again; the last password change, for a user; and
// [EndTokens], for all names. The time of a PSK_PROFILE key set or NONE_SUFFIXED root
// applies to all identities of its family.
func (s *Server) CountSince(ctx context.Context, identity, user string) (entity, ofUser time.Time, err error) {
	err = s.recall(ctx, "check the age of tokens", func(tx kv.Reader) error {
		m, _, err := s.entities.mark(tx, identity)
		if err != nil {
			return err
		}
		u, _, err := s.users.mark(tx, user)
		if err != nil {
			return err
		}
		began, err := readBegan(tx)
		if err != nil {
			return err
		}
		family, err := s.familyCounts(tx, identity)
		entity, ofUser = later(began, later(m.counts, family)), later(began, u.counts)
		return err
	})
	return entity, ofUser, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
