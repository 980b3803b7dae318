package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Errors of a cluster, wrapped with context. Test for them with errors.Is. Package state
// has those of the contents.
var (
	// ErrDamaged: the contents are not what this package wrote, or went back in time.
	ErrDamaged = kv.ErrDamaged
	// ErrFormat: the keys at the prefix are of a newer version, or for another purpose.
	ErrFormat = kv.ErrFormat
	// ErrEmpty: there is no state at the prefix.
	ErrEmpty = kv.ErrEmpty
	// ErrExists: there is a state at the prefix already.
	ErrExists = kv.ErrExists
	// ErrStale: etcd has not answered for longer than [Config.Staleness].
	ErrStale = kv.ErrStale
	// ErrUncertain: a change may or may not have been made, since etcd did not answer.
	ErrUncertain = etcdkv.ErrUncertain
)

// A Config tells where a state is. Endpoints must be set.
type Config struct {
	// Endpoints are the URLs of the members of the cluster, such as
	// https://etcd-1.example.com:2379. All have the same scheme, http or https.
	Endpoints []string
	// Prefix is before all keys of the state. Zero means "msl-hsm".
	Prefix string
	// TLS has the roots for https and, if etcd asks for it, a client certificate. Nil means
	// the roots of the system.
	TLS *tls.Config
	// User is the name of a user of etcd. Zero means none.
	User string
	// Password returns the password of User. It is called once; the result is overwritten.
	Password func(context.Context) ([]byte, error)
	// Staleness is how long a server goes on without etcd. Zero means 5 seconds.
	Staleness time.Duration
	// Notice is called with the reason when a server loses etcd, and with nil when etcd is
	// back. It may be nil.
	Notice func(error)
}

// A Server is the state of a server, in a cluster. It is safe for concurrent use.
type Server struct {
	*state.Server
	store io.Closer
}

// answerTime is how long a server waits for etcd: its clients wait, too. A new leader is
// usually elected in less.
const answerTime = 2 * time.Second

// Open opens the existing state for a server, and copies it into memory. A prefix without
// a state is [ErrEmpty].
func Open(ctx context.Context, c Config) (*Server, error) {
	db, err := c.open(ctx, answerTime, etcdkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	f, err := etcdkv.Follow(ctx, db, etcdkv.Following{Staleness: c.Staleness, Notice: c.Notice})
	if err != nil {
		return nil, err
	}
	return serverOf(f, f)
}

// Administer opens the existing state without a copy in memory, for a program that looks
// at it or changes it once. A prefix without a state is [ErrEmpty].
func Administer(ctx context.Context, c Config) (*Server, error) {
	db, err := c.open(ctx, 0, etcdkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	return serverOf(db, db)
}

// Create makes an empty state. If there is one at the prefix, the error is [ErrExists].
func Create(ctx context.Context, c Config) error {
	db, err := c.open(ctx, 0, etcdkv.CreateNew)
	if err != nil {
		return err
	}
	return db.Close()
}

func (c Config) open(ctx context.Context, timeout time.Duration, how etcdkv.Opening) (*etcdkv.DB, error) {
	return etcdkv.Open(ctx, etcdkv.Config{
		Endpoints: c.Endpoints, Prefix: c.Prefix, TLS: c.TLS, User: c.User, Password: c.Password, Timeout: timeout,
	}, etcdkv.Layout{Kind: "server", Tables: state.ServerTables(), Apart: state.TokenTables()}, how)
}

func serverOf(store kv.Store, closer io.Closer) (*Server, error) {
	s, err := state.NewServer(store)
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	return &Server{s, closer}, nil
}

// Close ends pruning and the copy, waits for running transactions and ends the connections.
func (s *Server) Close() error {
	s.StopPruning()
	return s.store.Close()
}
