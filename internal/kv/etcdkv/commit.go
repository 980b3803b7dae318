//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An attempt is a transaction sent once, under a mark.
type attempt struct {
	db   *DB
	mark *mark
}

// commit makes the changes of a transaction.
func (d *DB) commit(ctx context.Context, t *tx) error {
	operations, err := t.operations()
	if err != nil {
		return err
	}
	m, err := d.marks.take(ctx)
	if err != nil {
		return d.explain(err)
	}
	err = attempt{d, m}.send(ctx, t.unchanged(), operations)
	if !errors.Is(err, ErrUncertain) && m.revision != 0 {
		d.marks.put(m)
	}
	return err
}

// send sends the changes, to be made if nothing that was read has changed.
func (a attempt) send(ctx context.Context, compares []clientv3.Cmp, operations []clientv3.Op) error {
	a.mark.value = markValue()
	before := a.db.newest.Load()
	var answer *clientv3.TxnResponse
	err := a.db.once(ctx, func(ctx context.Context) (err error) {
		answer, err = a.db.client.Txn(ctx).
			If(append(compares, a.db.exists(), a.mark.compare())...).
			Then(append(operations, clientv3.OpPut(a.mark.key, a.mark.value))...).
			Else(clientv3.OpGet(a.db.key("format", formatKey)), clientv3.OpGet(a.mark.key)).Commit()
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return a.afterFull(ctx)
	case err != nil && isFinal(err):
		return a.db.explain(err)
	case err != nil:
		return a.settle(ctx, err)
	case answer.Succeeded:
		a.moved(answer.Header.Revision)
		return a.db.see(before, a.mark.revision)
	}
	if err := a.db.see(before, answer.Header.Revision); err != nil {
		return err
	}
	return a.refused(answer)
}

// moved notes the revision of the mark.
func (a attempt) moved(revision int64) {
	a.mark.revision = revision
	raise(&a.db.own, revision)
}

// refused says why a comparison failed. If the mark is of this attempt, the attempt
// succeeded, and reached etcd twice. A mark in an unexpected state is not used again.
func (a attempt) refused(answer *clientv3.TxnResponse) error {
	format, own := answer.Responses[0].GetResponseRange().Kvs, answer.Responses[1].GetResponseRange().Kvs
	if len(format) == 0 || format[0].ModRevision != a.db.made {
		return a.db.errGone()
	}
	switch {
	case len(own) > 0 && string(own[0].Value) == a.mark.value:
		a.moved(own[0].ModRevision)
		return nil
	case len(own) > 0 && own[0].ModRevision < a.mark.revision:
		return a.db.wentBack(a.mark.revision, own[0].ModRevision)
	case len(own) == 0 || own[0].ModRevision != a.mark.revision:
		a.mark.revision = 0
	}
	return errAgain
}

// settle finds out whether an unanswered transaction was made. If not, it changes the
// mark, which rules out that the transaction is made later, so that it is safe to run it
// again.
func (a attempt) settle(ctx context.Context, cause error) error {
	fence := a.mark.value + " refused"
	var answer *clientv3.TxnResponse
	err := ctx.Err()
	if err == nil {
		err = a.db.ask(ctx, func(ctx context.Context) (err error) {
			answer, err = a.db.client.Txn(ctx).If(a.mark.compare()).Then(clientv3.OpPut(a.mark.key, fence)).Else(clientv3.OpGet(a.mark.key)).Commit()
			return err
		})
	}
	if err != nil {
		return a.uncertain(ctx, cause)
	}
	if answer.Succeeded {
		a.moved(answer.Header.Revision)
		return errAgain
	}
	found := answer.Responses[0].GetResponseRange().Kvs
	if len(found) == 0 || string(found[0].Value) != a.mark.value && string(found[0].Value) != fence {
		return a.uncertain(ctx, cause)
	}
	a.moved(found[0].ModRevision)
	if string(found[0].Value) == fence { // by an unanswered attempt of this request
		return errAgain
	}
	return a.db.see(0, a.mark.revision)
}

// afterFull finds out whether a transaction was made although the database is full: a
// member may report that after making it.
func (a attempt) afterFull(ctx context.Context) error {
	var answer *clientv3.GetResponse
	err := a.db.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = a.db.client.Get(ctx, a.mark.key)
		return err
	})
	if err != nil {
		return a.uncertain(ctx, err)
	}
	if len(answer.Kvs) == 0 || string(answer.Kvs[0].Value) != a.mark.value {
		return a.db.explain(rpctypes.ErrNoSpace)
	}
	a.moved(answer.Kvs[0].ModRevision)
	return nil
}

// uncertain is the error after a change whose outcome is unknown.
func (a attempt) uncertain(ctx context.Context, cause error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("etcdkv: %w: %w", ErrUncertain, err)
	}
	return fmt.Errorf("%w: %w", a.db.explain(cause), ErrUncertain)
}
