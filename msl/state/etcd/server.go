package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Errors of a cluster, wrapped with context. Test for them with errors.Is. Package state
// has those of the contents.
var (
	// ErrDamaged: the contents are not what this package wrote, or went back in time.
	ErrDamaged = kv.ErrDamaged
	// ErrFormat: the keys at the prefix are of a newer version, or for another purpose.
	ErrFormat = kv.ErrFormat
	// ErrEmpty: the prefix has no state.
	ErrEmpty = kv.ErrEmpty
	// ErrExists: the prefix already has a state.
	ErrExists = kv.ErrExists
	// ErrForged: someone without the key changed the state, or restored an older one.
	ErrForged = kv.ErrForged
	// ErrStale: etcd has not answered for longer than [Config.Staleness].
	ErrStale = kv.ErrStale
	// ErrUncertain: a change may or may not have been made, since etcd did not answer.
	ErrUncertain = etcdkv.ErrUncertain
)

// A Key authenticates a state.
type Key = state.Key

// KeyOf is [state.KeyOf].
func KeyOf(store keystore.Store, label string) (Key, error) { return state.KeyOf(store, label) }

// A Config says where a state is. Endpoints must be set.
type Config struct {
	// Endpoints are the URLs of the members of the cluster, such as
	// https://etcd-1.example.com:2379. All have the same scheme, http or https.
	Endpoints []string
	// Prefix precedes all keys of the state. Zero means "msl-hsm".
	Prefix string
	// TLS has the roots for https and, if etcd asks for it, a client certificate. Nil
	// means the system's roots.
	TLS *tls.Config
	// User is the name of a user of etcd. Zero means none.
	User string
	// Password returns the password of User. It is called again when etcd no longer accepts
	// what it returned. The result is overwritten.
	Password func(context.Context) ([]byte, error)
	// Key authenticates the records, so that someone who can write to etcd cannot lift a
	// revocation or register an entity undetected: see [KeyOf]. All servers of a state
	// have the same key. Nil means that they are not authenticated.
	Key Key
	// Staleness is how long a server continues without etcd. Zero means 5 seconds.
	Staleness time.Duration
	// Notice is called with the reason when a server loses etcd, and with nil when etcd is
	// back. It may be nil.
	Notice func(error)
}

// A Server is the state of a server, in a cluster. It is safe for concurrent use.
type Server struct {
	*state.Server
	store  cluster
	verify func(context.Context) error
	renew  func(context.Context) error
}

// A cluster is where the store of a server is.
type cluster interface {
	Members(context.Context) []Member
	io.Closer
}

// A Member is a member of the cluster, as it answered.
type Member = etcdkv.Member

// answerTime is how long a server waits for etcd: its own clients are waiting, too. A new
// leader is usually elected sooner.
const answerTime = 2 * time.Second

// Open opens the existing state for a server, copies it into memory, and makes the newest
// version of the key authenticate it. A prefix without a state is [ErrEmpty].
func Open(ctx context.Context, c Config) (*Server, error) {
	db, err := c.openBegun(ctx, answerTime)
	if err != nil {
		return nil, err
	}
	how := etcdkv.Following{Staleness: c.Staleness, Notice: c.Notice}
	seen := authkv.NewSeen(copied())
	if c.Key != nil {
		how.Observer = seen
	}
	f, err := etcdkv.Follow(ctx, db, how)
	if err != nil {
		return nil, err
	}
	if c.Key == nil {
		return serverOf(ctx, f, f)
	}
	authentic := authkv.OpenShared(f, c.Key, copied(), seen)
	err = f.Recall(ctx, kv.Copied) // a part of a state is not what its root says
	if err == nil {
		err = authentic.Recall(ctx, func(kv.Reader) error { return nil })
	}
	if err == nil {
		err = authentic.Renew(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return serverOf(ctx, authentic, f)
}

// copied returns the tables that are copied and authenticated.
func copied() []string { return state.LastingTables() }

// Administer opens the existing state without a copy in memory, for a program that reads
// or changes it once. A prefix without a state is [ErrEmpty].
func Administer(ctx context.Context, c Config) (*Server, error) {
	db, err := c.openBegun(ctx, 0)
	if err != nil {
		return nil, err
	}
	if c.Key == nil {
		return serverOf(ctx, db, db)
	}
	return serverOf(ctx, authkv.Open(db, c.Key, copied()), db)
}

// Create makes an empty state. If the prefix already has one, the error is [ErrExists].
func Create(ctx context.Context, c Config) error {
	db, err := c.open(ctx, 0, etcdkv.CreateNew)
	if errors.Is(err, ErrExists) && c.Key != nil {
		return c.finish(ctx, err)
	}
	if err == nil && c.Key != nil {
		err = errors.Join(authkv.Begin(ctx, db, c.Key), db.Close())
	} else if err == nil {
		err = db.Close()
	}
	return err
}

// finish makes the root of a state that another process began to make. If the prefix has
// something else, it returns exists.
func (c Config) finish(ctx context.Context, exists error) error {
	db, err := c.open(ctx, 0, etcdkv.OpenExisting)
	if err != nil {
		return err
	}
	defer db.Close()
	begun, err := authkv.Begun(ctx, db, state.ServerTables())
	switch {
	case err != nil:
		return err
	case begun:
		return exists
	}
	return authkv.Begin(ctx, db, c.Key)
}

// openBegun opens an existing store. One that was made, and to which nothing more happened,
// is [ErrEmpty].
func (c Config) openBegun(ctx context.Context, timeout time.Duration) (*etcdkv.DB, error) {
	db, err := c.open(ctx, timeout, etcdkv.OpenExisting)
	if err != nil || c.Key == nil {
		return db, err
	}
	begun, err := authkv.Begun(ctx, db, state.ServerTables())
	if err == nil && !begun {
		err = cmp.Or(db.View(ctx, kv.Copied), fmt.Errorf("etcd: the state at %q was not made completely: %w", c.Prefix, ErrEmpty))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (c Config) open(ctx context.Context, timeout time.Duration, how etcdkv.Opening) (*etcdkv.DB, error) {
	return etcdkv.Open(ctx, etcdkv.Config{
		Endpoints: c.Endpoints, Prefix: c.Prefix, TLS: c.TLS, User: c.User, Password: c.Password, Timeout: timeout,
	}, layout(), how)
}

// besides is the place below the prefix, ~enrollments/, reserved for another store: that
// of the devices that enroll at the same servers.
const besides = "enrollments"

func layout() etcdkv.Layout {
	return etcdkv.Layout{Kind: "server", Tables: append(state.ServerTables(), besides), Apart: append(state.TokenTables(), besides)}
}

// serverOf makes the server of a store, authenticated if that has a root. On failure it
// closes the store.
func serverOf(ctx context.Context, store kv.Store, closer cluster) (*Server, error) {
	nothing := func(context.Context) error { return nil }
	s := &Server{store: closer, verify: nothing, renew: nothing}
	rooted, err := authkv.HasRoot(ctx, store)
	switch authentic := store.(type) {
	case interface {
		Verify(context.Context) error
		Renew(context.Context) error
	}:
		s.verify, s.renew = authentic.Verify, authentic.Renew
	default:
		if rooted {
			err = errors.Join(err, errors.New("etcd: the state is authenticated, but no key was given"))
		}
	}
	if err == nil {
		s.Server, err = state.NewServer(store)
	}
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	return s, nil
}

// Verify reads everything except the records of ids and renewals, and checks that it is
// authentic: otherwise the error is [ErrForged]. Without a key it does nothing.
func (s *Server) Verify(ctx context.Context) error { return s.verify(ctx) }

// Reauthenticate makes the newest version of the key authenticate the state. Without a
// key it does nothing.
func (s *Server) Reauthenticate(ctx context.Context) error { return s.renew(ctx) }

// Members asks each of [Config.Endpoints] for its status, for a second at most. Errors
// are in the members.
func (s *Server) Members(ctx context.Context) []Member { return s.store.Members(ctx) }

// Close stops pruning and the copy, waits for running transactions and closes the
// connections.
func (s *Server) Close() error {
	s.StopPruning()
	return s.store.Close()
}
