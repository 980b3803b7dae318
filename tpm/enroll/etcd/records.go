package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/clusterkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Errors of a cluster, wrapped with context. Test for them with errors.Is. Package enroll
// has those of the records.
var (
	// ErrEmpty: the prefix has no records, not even an empty set.
	ErrEmpty = kv.ErrEmpty
	// ErrExists: the prefix already has records.
	ErrExists = kv.ErrExists
	// ErrForged: someone without the key changed the records, or put back older ones.
	ErrForged = kv.ErrForged
	// ErrStale: etcd has not answered for longer than [Config.Staleness].
	ErrStale = kv.ErrStale
	// ErrUncertain: a change may or may not have been made, since etcd did not answer.
	ErrUncertain = etcdkv.ErrUncertain
)

// A Config says where records are. Endpoints must be set.
type Config struct {
	// Endpoints are the URLs of the members of the cluster, such as
	// https://etcd-1.example.com:2379. All have the same scheme, http or https.
	Endpoints []string
	// Prefix precedes all keys. Zero means the one beside the state with the default
	// prefix, see [Beside].
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
	// Key authenticates the records. All servers have the same key. It may be that of
	// their state, since the data authenticated here begins differently. Nil means that
	// they are not authenticated.
	Key authkv.Key
	// Staleness is how long tokens are judged without etcd. Zero means 5 seconds.
	Staleness time.Duration
}

// Beside returns the prefix of records beside the state of servers with a prefix, which
// the state leaves free. The empty prefix is that of a state without one.
func Beside(prefix string) string {
	if prefix == "" {
		prefix = "msl-hsm"
	}
	return prefix + "/~enrollments"
}

// Records are the records of an authority in a cluster. They are safe for concurrent use.
type Records struct {
	enroll.Stored
	store   kv.Store
	cluster io.Closer
}

// bulk keeps the records, which are large, out of the copy.
func bulk() authkv.Bulk { return authkv.Bulk{Table: enroll.RecordTable, Digests: "digests"} }

// small are the tables that are copied and authenticated.
func small() []string {
	all := append(enroll.Tables(), bulk().Digests)
	return slices.DeleteFunc(all, func(table string) bool { return table == enroll.RecordTable })
}

func layout() etcdkv.Layout {
	apart := []string{enroll.RecordTable, windowTable}
	return etcdkv.Layout{Kind: "enrollments", Tables: append(small(), apart...), Apart: apart}
}

func (c Config) place() clusterkv.Place {
	if c.Prefix == "" {
		c.Prefix = Beside("")
	}
	p := clusterkv.Place{
		Config: etcdkv.Config{Endpoints: c.Endpoints, Prefix: c.Prefix, TLS: c.TLS, Roots: c.Roots, User: c.User, Password: c.Password},
		Layout: layout(), What: "the enrollments", Summed: small(), Records: append(small(), enroll.RecordTable),
		Following: etcdkv.Following{Staleness: c.Staleness},
	}
	if c.Key != nil {
		p.Key = enroll.KeyOfRecords(c.Key)
	}
	return p
}

// Open opens existing records for a server, and copies into memory what leads to them. The
// newest version of the key authenticates them from then on. A prefix without records is
// [ErrEmpty].
func Open(ctx context.Context, c Config) (*Records, error) {
	store, cluster, err := c.place().Follow(ctx)
	if err != nil {
		return nil, err
	}
	return recordsOf(ctx, store, cluster)
}

// Administer opens existing records without a copy in memory, for a program that reads or
// changes them once. A prefix without records is [ErrEmpty].
func Administer(ctx context.Context, c Config) (*Records, error) {
	store, cluster, err := c.place().Administer(ctx)
	if err != nil {
		return nil, err
	}
	return recordsOf(ctx, store, cluster)
}

// recordsOf makes the records of a store, which it closes on failure.
func recordsOf(ctx context.Context, store kv.Store, cluster io.Closer) (*Records, error) {
	if err := store.View(ctx, kv.Copied); err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	return &Records{enroll.StoredIn(bulk().Over(store)), store, cluster}, nil
}

// Create makes an empty set of records. If the prefix already has records, the error is
// [ErrExists].
func Create(ctx context.Context, c Config) error { return c.place().Create(ctx) }

// View implements enroll.Records.
func (r *Records) View(ctx context.Context, fn func(enroll.Tx) error) error {
	if err := r.forged(ctx); err != nil {
		return err
	}
	return r.Stored.View(ctx, fn)
}

// Update implements enroll.Records.
func (r *Records) Update(ctx context.Context, fn func(enroll.Tx) error) error {
	if err := r.forged(ctx); err != nil {
		return err
	}
	return r.Stored.Update(ctx, fn)
}

// forged returns the error of an inauthentic copy. A copy that is merely too old is no
// reason not to ask etcd.
func (r *Records) forged(ctx context.Context) error {
	if _, copied := r.store.(kv.Shared); !copied {
		return nil
	}
	err := r.Recall(ctx, func(enroll.Tx) error { return nil })
	if errors.Is(err, ErrForged) {
		return err
	}
	return nil
}

// Verify reads everything except the records themselves, which are compared when they are
// read, and checks that it is authentic: otherwise the error is [ErrForged]. Without a
// key it does nothing.
func (r *Records) Verify(ctx context.Context) error { return authkv.Verify(ctx, r.store) }

// Renew makes the newest version of the key authenticate the records. Without a key it
// does nothing.
func (r *Records) Renew(ctx context.Context) error { return authkv.Renew(ctx, r.store) }

// Check verifies and reads everything, and counts the records by state. Entries that do
// not lead to a record, or do not match it, are enroll.ErrDamaged.
func (r *Records) Check() (map[enroll.State]int, error) {
	if err := r.Verify(context.Background()); err != nil {
		return nil, err
	}
	return r.Stored.Check()
}

// AtOnce implements enroll.Records: a record has ten entries that lead to it
// or follow from it, of the hundred that etcd accepts.
func (r *Records) AtOnce() int { return 8 }

// Close stops the copy, waits for running transactions and closes the connections.
func (r *Records) Close() error { return r.cluster.Close() }
