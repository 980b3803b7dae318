package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/clusterkv"
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
	// Roots returns the roots for https, instead of those of TLS. It is called for each
	// connection, so that the CA of etcd can be replaced. It may be nil.
	Roots func() (*x509.CertPool, error)
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
	store   kv.Store
	cluster clusterkv.Cluster
}

// A Member is a member of the cluster, as it answered.
type Member = etcdkv.Member

// Open opens the existing state for a server, copies it into memory, and makes the newest
// version of the key authenticate it. A prefix without a state is [ErrEmpty].
func Open(ctx context.Context, c Config) (*Server, error) {
	store, cluster, err := c.place().Follow(ctx)
	if err != nil {
		return nil, err
	}
	return serverOf(store, cluster)
}

// Administer opens the existing state without a copy in memory, for a program that reads
// or changes it once. A prefix without a state is [ErrEmpty].
func Administer(ctx context.Context, c Config) (*Server, error) {
	store, cluster, err := c.place().Administer(ctx)
	if err != nil {
		return nil, err
	}
	return serverOf(store, cluster)
}

// Create makes an empty state. If the prefix already has one, the error is [ErrExists].
func Create(ctx context.Context, c Config) error { return c.place().Create(ctx) }

// copied returns the tables that are copied and authenticated.
func copied() []string { return state.LastingTables() }

func (c Config) place() clusterkv.Place {
	return clusterkv.Place{
		Config: etcdkv.Config{Endpoints: c.Endpoints, Prefix: c.Prefix, TLS: c.TLS, Roots: c.Roots, User: c.User, Password: c.Password},
		Layout: layout(), What: "the state", Key: c.Key, Summed: copied(), Records: state.ServerTables(),
		Following: etcdkv.Following{Staleness: c.Staleness, Notice: c.Notice},
	}
}

// besides is the place below the prefix, ~enrollments/, reserved for another store: that
// of the devices that enroll at the same servers.
const besides = "enrollments"

func layout() etcdkv.Layout {
	return etcdkv.Layout{Kind: "server", Tables: append(state.ServerTables(), besides), Apart: append(state.TokenTables(), besides)}
}

// serverOf makes the server of a store, which it closes on failure.
func serverOf(store kv.Store, cluster clusterkv.Cluster) (*Server, error) {
	s, err := state.NewServer(store)
	if err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	return &Server{s, store, cluster}, nil
}

// Verify reads everything except the records of ids and renewals, and checks that it is
// authentic: otherwise the error is [ErrForged]. Without a key it does nothing.
func (s *Server) Verify(ctx context.Context) error { return authkv.Verify(ctx, s.store) }

// Reauthenticate makes the newest version of the key authenticate the state. Without a
// key it does nothing.
func (s *Server) Reauthenticate(ctx context.Context) error { return authkv.Renew(ctx, s.store) }

// Members asks each of [Config.Endpoints] for its status, for a second at most. Errors
// are in the members.
func (s *Server) Members(ctx context.Context) []Member { return s.cluster.Members(ctx) }

// Close stops pruning and the copy, waits for running transactions and closes the
// connections.
func (s *Server) Close() error {
	s.StopPruning()
	return s.cluster.Close()
}
