package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
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
	store  io.Closer
	db     kv.Store
	copied bool // into memory
	verify func(context.Context) error
}

// answerTime is how long a server waits for etcd: devices are waiting, too.
const answerTime = 2 * time.Second

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

func (c Config) open(ctx context.Context, timeout time.Duration, how etcdkv.Opening) (*etcdkv.DB, error) {
	if c.Prefix == "" {
		c.Prefix = Beside("")
	}
	return etcdkv.Open(ctx, etcdkv.Config{
		Endpoints: c.Endpoints, Prefix: c.Prefix, TLS: c.TLS, User: c.User, Password: c.Password, Timeout: timeout,
	}, layout(), how)
}

// Open opens existing records for a server, and copies into memory what leads to them. The
// newest version of the key authenticates them from then on. A prefix without records is
// [ErrEmpty].
func Open(ctx context.Context, c Config) (*Records, error) {
	db, err := c.openBegun(ctx, answerTime)
	if err != nil {
		return nil, err
	}
	how := etcdkv.Following{Staleness: c.Staleness}
	seen := authkv.NewSeen(small())
	if c.Key != nil {
		how.Observer = seen
	}
	f, err := etcdkv.Follow(ctx, db, how)
	if err != nil {
		return nil, err
	}
	if c.Key == nil {
		return recordsOf(ctx, f, f, nil)
	}
	authentic := authkv.OpenShared(f, enroll.KeyOfRecords(c.Key), small(), seen)
	err = f.Recall(ctx, kv.Copied) // a part of the records is not what their root says
	if err == nil {
		err = authentic.Recall(ctx, func(kv.Reader) error { return nil })
	}
	if err == nil {
		err = authentic.Renew(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return recordsOf(ctx, authentic, f, authentic.Verify)
}

// Administer opens existing records without a copy in memory, for a program that reads or
// changes them once. A prefix without records is [ErrEmpty].
func Administer(ctx context.Context, c Config) (*Records, error) {
	db, err := c.openBegun(ctx, 0)
	if err != nil {
		return nil, err
	}
	if c.Key == nil {
		return recordsOf(ctx, db, db, nil)
	}
	authentic := authkv.Open(db, enroll.KeyOfRecords(c.Key), small())
	return recordsOf(ctx, authentic, db, authentic.Verify)
}

// recordsOf makes the records of a store, which is authenticated if verify is not nil. On
// failure it closes the store.
func recordsOf(ctx context.Context, store kv.Store, closer io.Closer, verify func(context.Context) error) (*Records, error) {
	rooted, err := authkv.HasRoot(ctx, store)
	if err == nil && rooted && verify == nil {
		err = errors.New("etcd: the enrollments are authenticated, but no key was given")
	}
	if err == nil {
		err = store.View(ctx, kv.Copied)
	}
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	_, copied := store.(kv.Shared)
	return &Records{enroll.StoredIn(bulk().Over(store)), closer, store, copied, verify}, nil
}

// Create makes an empty set of records. If the prefix already has records, the error is
// [ErrExists].
func Create(ctx context.Context, c Config) error {
	db, err := c.open(ctx, 0, etcdkv.CreateNew)
	if errors.Is(err, ErrExists) && c.Key != nil {
		return c.finish(ctx, err)
	}
	if err == nil && c.Key != nil {
		err = authkv.Begin(ctx, db, enroll.KeyOfRecords(c.Key))
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	return err
}

// finish makes the root of records that another process began to make. If the prefix has
// something else, it returns exists.
func (c Config) finish(ctx context.Context, exists error) error {
	db, err := c.open(ctx, 0, etcdkv.OpenExisting)
	if err != nil {
		return err
	}
	defer db.Close()
	begun, err := authkv.Begun(ctx, db, append(small(), enroll.RecordTable))
	switch {
	case err != nil:
		return err
	case begun:
		return exists
	}
	return authkv.Begin(ctx, db, enroll.KeyOfRecords(c.Key))
}

// openBegun opens an existing store. One that was made, and to which nothing more happened,
// is [ErrEmpty].
func (c Config) openBegun(ctx context.Context, timeout time.Duration) (*etcdkv.DB, error) {
	db, err := c.open(ctx, timeout, etcdkv.OpenExisting)
	if err != nil || c.Key == nil {
		return db, err
	}
	begun, err := authkv.Begun(ctx, db, append(small(), enroll.RecordTable))
	if err == nil && !begun {
		err = cmp.Or(db.View(ctx, kv.Copied), fmt.Errorf("etcd: the enrollments at %q were not made completely: %w", c.Prefix, ErrEmpty))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

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
	if !r.copied {
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
func (r *Records) Verify(ctx context.Context) error {
	if r.verify == nil {
		return nil
	}
	return r.verify(ctx)
}

// Renew makes the newest version of the key authenticate the records. Without a key it
// does nothing.
func (r *Records) Renew(ctx context.Context) error {
	if authentic, ok := r.db.(interface{ Renew(context.Context) error }); ok {
		return authentic.Renew(ctx)
	}
	return nil
}

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
func (r *Records) Close() error { return r.store.Close() }
