//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Tables of etcdkv's own.
const (
	marked   = ".marks"   // by process and number
	removals = ".removed" // by table
)

// A mark is a record in etcd that one Update at a time has for itself. Each transaction
// compares its revision and changes it, and so it shows which transaction was the last.
type mark struct {
	key      string
	revision int64
	value    string // of the last attempt
}

// marks are those that no Update uses now.
type marks struct {
	mu   sync.Mutex
	own  string // names this process
	made int
	free []*mark
}

// commit makes the changes of a transaction.
func (d *DB) commit(ctx context.Context, t *tx) error {
	operations, err := t.operations()
	if err != nil {
		return err
	}
	m, err := d.takeMark(ctx)
	if err != nil {
		return d.explain(err)
	}
	err = d.attempt(ctx, m, t.unchanged(), operations)
	if !errors.Is(err, ErrUncertain) && m.revision != 0 {
		d.marks.put(m)
	}
	return err
}

// attempt sends a transaction once.
func (d *DB) attempt(ctx context.Context, m *mark, compares []clientv3.Cmp, operations []clientv3.Op) error {
	m.value = markValue()
	before := d.newest.Load()
	var answer *clientv3.TxnResponse
	err := d.once(ctx, func(ctx context.Context) (err error) {
		answer, err = d.client.Txn(ctx).
			If(append(compares, d.exists(), m.compare())...).
			Then(append(operations, clientv3.OpPut(m.key, m.value))...).
			Else(clientv3.OpGet(d.key("format", formatKey)), clientv3.OpGet(m.key)).Commit()
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return d.afterFull(ctx, m)
	case err != nil && isFinal(err):
		return d.explain(err)
	case err != nil:
		return d.settle(ctx, m, err)
	case answer.Succeeded:
		m.revision = answer.Header.Revision
		return d.see(before, m.revision)
	}
	if err := d.see(before, answer.Header.Revision); err != nil {
		return err
	}
	return d.refused(m, answer)
}

// refused tells why something compared was not as expected. A mark that is not as it was
// is not used again.
func (d *DB) refused(m *mark, answer *clientv3.TxnResponse) error {
	format, own := answer.Responses[0].GetResponseRange().Kvs, answer.Responses[1].GetResponseRange().Kvs
	if len(format) == 0 || format[0].ModRevision != d.made {
		return d.errGone()
	}
	if len(own) == 0 || own[0].ModRevision != m.revision {
		m.revision = 0
	}
	return errAgain
}

// settle finds out whether an unanswered transaction was made. If not, it changes the
// mark, and so rules out that it still will be, and it is safe to run it again.
func (d *DB) settle(ctx context.Context, m *mark, cause error) error {
	fence := m.value + " refused"
	var answer *clientv3.TxnResponse
	err := ctx.Err()
	if err == nil {
		err = d.ask(ctx, func(ctx context.Context) (err error) {
			answer, err = d.client.Txn(ctx).If(m.compare()).Then(clientv3.OpPut(m.key, fence)).Else(clientv3.OpGet(m.key)).Commit()
			return err
		})
	}
	if err != nil {
		return d.uncertain(ctx, cause)
	}
	if answer.Succeeded {
		m.revision = answer.Header.Revision
		return errAgain
	}
	found := answer.Responses[0].GetResponseRange().Kvs
	if len(found) == 0 || string(found[0].Value) != m.value && string(found[0].Value) != fence {
		return d.uncertain(ctx, cause)
	}
	m.revision = found[0].ModRevision
	if string(found[0].Value) == fence { // by an attempt of this request that was not answered
		return errAgain
	}
	return d.see(0, m.revision)
}

// afterFull tells whether a transaction was made although the database is full: a member
// may say so after it has made it.
func (d *DB) afterFull(ctx context.Context, m *mark) error {
	var answer *clientv3.GetResponse
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = d.client.Get(ctx, m.key)
		return err
	})
	if err != nil {
		return d.uncertain(ctx, err)
	}
	if len(answer.Kvs) == 0 || string(answer.Kvs[0].Value) != m.value {
		return d.explain(rpctypes.ErrNoSpace)
	}
	m.revision = answer.Kvs[0].ModRevision
	return nil
}

// uncertain is the error after a change whose outcome is unknown.
func (d *DB) uncertain(ctx context.Context, cause error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("etcdkv: %w: %w", ErrUncertain, err)
	}
	return fmt.Errorf("%w: %w", d.explain(cause), ErrUncertain)
}

func (m *mark) compare() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(m.key), "=", m.revision)
}

// markValue returns a value that occurs only once, with the time.
func markValue() string { return strconv.FormatInt(time.Now().Unix(), 10) + " " + rand.Text() }

// takeMark returns a mark for the caller alone. A new one is made first, so that its
// absence always means that it was removed.
func (d *DB) takeMark(ctx context.Context) (*mark, error) {
	if m := d.marks.take(); m != nil {
		return m, nil
	}
	m := &mark{key: d.key(marked, d.marks.name())}
	before := d.newest.Load()
	err := d.ask(ctx, func(ctx context.Context) error {
		answer, err := d.client.Txn(ctx).If(m.compare()).Then(clientv3.OpPut(m.key, markValue())).Else(clientv3.OpGet(m.key)).Commit()
		if err != nil {
			return err
		}
		m.revision = answer.Header.Revision
		if !answer.Succeeded { // an attempt that was not answered made it
			m.revision = answer.Responses[0].GetResponseRange().Kvs[0].ModRevision
		}
		return d.see(before, answer.Header.Revision)
	})
	return m, err
}

func (m *marks) take() *mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) == 0 {
		return nil
	}
	last := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return last
}

func (m *marks) put(back *mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, back)
}

func (m *marks) name() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return fmt.Sprint(m.own, "/", m.made)
}

// removeMarks removes the marks of this process, if etcd answers. A transaction that is
// still under way is not made any more.
func (d *DB) removeMarks() {
	if d.marks.made == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.config.Timeout/6)
	defer cancel()
	_, _ = d.client.Delete(ctx, d.key(marked, d.marks.own+"/"), clientv3.WithPrefix())
}

// removeOldMarks removes some marks of processes that ended without doing so.
func (d *DB) removeOldMarks(ctx context.Context, now time.Time) error {
	const unused = 24 * time.Hour
	return d.ask(ctx, func(ctx context.Context) error {
		found, err := d.client.Get(ctx, d.key(marked, ""), clientv3.WithPrefix(), clientv3.WithLimit(1000))
		if err != nil {
			return err
		}
		var compares []clientv3.Cmp
		var operations []clientv3.Op
		for _, record := range found.Kvs {
			text, _, _ := strings.Cut(string(record.Value), " ")
			seconds, err := strconv.ParseInt(text, 10, 64)
			if err == nil && now.Sub(time.Unix(seconds, 0)) > unused && len(operations) < maxOperations {
				compares = append(compares, clientv3.Compare(clientv3.ModRevision(string(record.Key)), "=", record.ModRevision))
				operations = append(operations, clientv3.OpDelete(string(record.Key)))
			}
		}
		if len(operations) == 0 {
			return nil
		}
		_, err = d.client.Txn(ctx).If(compares...).Then(operations...).Commit()
		return err
	})
}
