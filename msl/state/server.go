package state

import (
	"context"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
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

// ServerTables are the tables that the store of a [Server] has.
func ServerTables() []string {
	return []string{tableEntities, tableEntityMarks, tableUsers, tableUserMarks, tableIDs, tableSequences}
}

// A Server is the state of a server. It is safe for use by many goroutines.
type Server struct {
	records
	*Directory
	*Accounts
	*Tokens
	began   time.Time // before which no token counts
	pruning pruning
}

var (
	_ msl.State     = (*Server)(nil)
	_ msl.Directory = (*Server)(nil)

	_ msl.TokenDates = (*Server)(nil)
	_ msl.Forgetter  = (*Server)(nil)
)

// beganKey is in the settings.
const beganKey = "began"

// NewServer is the state in a store, which has the [ServerTables] and is the caller's
// to close. A setting that does not read is [ErrDamaged].
func NewServer(store kv.Store) (*Server, error) {
	r := records{store}
	s := &Server{
		records:   r,
		Directory: &Directory{records: r},
		Accounts:  &Accounts{records: r, hashing: newHashing(passwordsAtATime), cost: recommendedCost},
		Tokens:    &Tokens{records: r},
	}
	return s, store.View(context.Background(), s.readSettings)
}

func (s *Server) readSettings(tx kv.Reader) error {
	b, err := tx.Get(kv.Settings, []byte(keepKey))
	if err != nil {
		return err
	}
	if s.keeps.all, err = decodeKeeps(b); err != nil {
		return err
	}
	b, err = tx.Get(kv.Settings, []byte(beganKey))
	if err != nil || b == nil {
		return err
	}
	n, err := decodeInts(b, 1)
	if err == nil {
		s.began = time.Unix(n[0], 0)
	}
	return err
}

// EndTokens lets no token count that was issued until now, once a [Server] is made of
// the store. It returns when those that are issued from then on do.
func EndTokens(store kv.Store) error {
	began := secondAfter(time.Now())
	err := records{store}.update(context.Background(), "end all tokens", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(beganKey), encodeInts(seconds(began)))
	})
	if err == nil {
		time.Sleep(min(time.Second, time.Until(began)))
	}
	return err
}

// Revoked implements msl.State. An entity or a user that was removed counts as
// revoked until it is added again, since its tokens may still be valid. One
// that was never registered here is not revoked: other schemes know entities,
// and applications know users, that this state does not. With a key set of the
// scheme PSK_PROFILE go the identities of all its profiles, and with a root of
// NONE_SUFFIXED those of all its suffixes.
func (s *Server) Revoked(ctx context.Context, identity, user string) error {
	return s.view(ctx, "check revocation", func(tx kv.Reader) error {
		m, err := entityRoll.mark(tx, identity)
		if err != nil {
			return err
		}
		gone := m.refuses()
		if !gone {
			gone, err = familyRefused(tx, identity)
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
		if m, err = userRoll.mark(tx, user); err == nil && m.refuses() {
			err = msl.ErrUserIDTokenRevoked
		}
		return err
	})
}

// CountSince implements msl.TokenDates. A name that was removed and added again
// begins anew, and so does a user whose password was changed; so do all with
// [EndTokens]. With a key set of PSK_PROFILE and a root of NONE_SUFFIXED go
// the identities of its family.
func (s *Server) CountSince(ctx context.Context, identity, user string) (entity, ofUser time.Time, err error) {
	err = s.view(ctx, "check the age of tokens", func(tx kv.Reader) error {
		m, err := entityRoll.mark(tx, identity)
		if err != nil {
			return err
		}
		u, err := userRoll.mark(tx, user)
		if err != nil {
			return err
		}
		family, err := familyCounts(tx, identity)
		entity, ofUser = later(s.began, later(m.counts, family)), later(s.began, u.counts)
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
