package state

import (
	"context"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// records wraps the store of a state. Its errors say what was being done.
type records struct{ store kv.Store }

func (r records) view(ctx context.Context, op string, fn func(kv.Reader) error) error {
	return wrap(op, r.store.View(ctx, fn))
}

// recall is view for judging messages. In a store shared by several servers it reads the
// copy in memory.
func (r records) recall(ctx context.Context, op string, fn func(kv.Reader) error) error {
	if shared, ok := r.store.(kv.Shared); ok {
		return wrap(op, shared.Recall(ctx, fn))
	}
	return r.view(ctx, op, fn)
}

func (r records) update(ctx context.Context, op string, fn func(kv.Tx) error) error {
	return wrap(op, r.store.Update(ctx, fn))
}

// noteDown is update for what servers note about themselves. They do not while another state is
// copied to the store: it would not be authentic.
func (r records) noteDown(ctx context.Context, op string, fn func(kv.Tx) error) error {
	return r.update(ctx, op, func(tx kv.Tx) error {
		if err := kv.Copied(tx); err != nil {
			return err
		}
		return fn(tx)
	})
}

// changeAt changes what a roster has under a name, as of the present of the servers.
func (r records) changeAt(op string, of roster, name string, do func(tx kv.Tx, key string, at time.Time) error) error {
	at, err := r.moment(context.Background())
	if err != nil {
		return err
	}
	return r.update(context.Background(), op, func(tx kv.Tx) error {
		return of.change(tx, name, func(tx kv.Tx, key string) error { return do(tx, key, at) })
	})
}

// returning makes a change after which only new tokens of a name count, and waits until
// newly issued tokens do: within the next second, or at once if tokens are issued for later.
func (r records) returning(op string, of roster, name string, fn func(kv.Tx) error) error {
	var counts time.Time
	err := r.update(context.Background(), op, func(tx kv.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		m, _, err := of.mark(tx, name)
		counts = m.counts
		return err
	})
	if wait := time.Until(counts); err == nil && wait <= time.Second {
		time.Sleep(wait)
	}
	return err
}
