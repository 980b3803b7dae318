package bolt

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/msl"
)

// The parts of a server's file.
const (
	bucketEntities    = "entities"     // by identity
	bucketEntityMarks = "entity marks" // by identity
	bucketUsers       = "users"        // by name
	bucketUserMarks   = "user marks"   // by name
	bucketIDs         = "ids"          // by identity and serial number
	bucketSequences   = "sequences"    // by identity and serial number
)

// A Server is the state of a server, in a file. It is safe for use by many
// goroutines.
type Server struct {
	db       *bbolt.DB
	path     string
	writes   group
	entities entityCache
	hashing  *hashing
	cost     passwordCost // of new passwords
	began    time.Time    // before which no token counts
	keeps    keeps
	pruning  pruning
}

var (
	_ msl.State     = (*Server)(nil)
	_ msl.Directory = (*Server)(nil)

	_ msl.TokenDates = (*Server)(nil)
	_ msl.Forgetter  = (*Server)(nil)
)

// OpenServer opens the file at path, or makes it in a directory that is there: for
// a program that cannot know whether it runs for the first time, and pays for it
// with a wrong path being a new state. See [ReopenServer]. A file that another
// process has open is [ErrInUse], after a short while; one with nothing in it is
// [ErrEmpty].
func OpenServer(path string) (*Server, error) { return serverAt(path, either) }

// ReopenServer opens the file at path. None is fs.ErrNotExist.
func ReopenServer(path string) (*Server, error) { return serverAt(path, find) }

// CreateServer makes the file at path. One that is there is [ErrExists].
func CreateServer(path string) (*Server, error) { return serverAt(path, create) }

func serverFile() purpose {
	return purpose{
		kind: "server",
		buckets: []string{bucketEntities, bucketEntityMarks, bucketUsers, bucketUserMarks,
			bucketIDs, bucketSequences},
		lockWait: 2 * time.Second,
		holder:   "another msl-hsm serve or admin command",
		remedy:   "restore it from a backup and make new issuer keys",
		strict:   true,
	}
}

func serverAt(path string, how opening) (*Server, error) {
	db, err := open(path, serverFile(), how)
	if err != nil {
		return nil, err
	}
	s := &Server{
		db:      db,
		path:    path,
		writes:  group{db: db},
		hashing: newHashing(passwordsAtATime),
		cost:    recommendedCost,
	}
	if err := s.settings(); err != nil {
		db.Close()
		return nil, serverFile().explain(path, err)
	}
	return s, nil
}

// Close ends pruning, waits for what is under way and closes the file.
func (s *Server) Close() error {
	s.stopPruning()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("bolt: close %s: %w", s.path, err)
	}
	return nil
}

// Revoked implements msl.State. An entity or a user that was removed counts as
// revoked until it is added again, since its tokens may still be valid. One
// that was never registered here is not revoked: other schemes know entities,
// and applications know users, that this file does not. With a key set of the
// scheme PSK_PROFILE go the identities of all its profiles, and with a root of
// NONE_SUFFIXED those of all its suffixes.
func (s *Server) Revoked(ctx context.Context, identity, user string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.view("check revocation", func(tx *bbolt.Tx) error {
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
// [RestoreServer]. With a key set of PSK_PROFILE and a root of NONE_SUFFIXED go
// the identities of its family.
func (s *Server) CountSince(ctx context.Context, identity, user string) (entity, ofUser time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return entity, ofUser, err
	}
	err = s.view("check the age of tokens", func(tx *bbolt.Tx) error {
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

func (s *Server) view(op string, fn func(*bbolt.Tx) error) error {
	return wrap(op, view(s.db, fn))
}

func (s *Server) update(op string, fn func(*bbolt.Tx) error) error {
	return wrap(op, update(s.db, fn))
}

// returning makes a change after which the tokens of a name count anew, and waits
// until those that are issued from now on do.
func (s *Server) returning(op string, r roll, name string, fn func(*bbolt.Tx) error) error {
	var counts time.Time
	err := s.update(op, func(tx *bbolt.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		m, err := r.mark(tx, name)
		counts = m.counts
		return err
	})
	if err == nil {
		time.Sleep(min(time.Second, time.Until(counts)))
	}
	return err
}

// wrap says what was being done, except where the answer is a code of the
// protocol.
func wrap(op string, err error) error {
	if _, isCode := err.(msl.Code); err == nil || isCode {
		return err
	}
	return fmt.Errorf("bolt: %s: %w", op, err)
}
