package state

import (
	"context"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// records are what a state keeps. An error says what was being done.
type records struct{ store kv.Store }

func (r records) view(ctx context.Context, op string, fn func(kv.Reader) error) error {
	return wrap(op, r.store.View(ctx, fn))
}

func (r records) update(ctx context.Context, op string, fn func(kv.Tx) error) error {
	return wrap(op, r.store.Update(ctx, fn))
}

// returning makes a change after which the tokens of a name count anew, and waits
// until those that are issued from now on do.
func (r records) returning(op string, of roll, name string, fn func(kv.Tx) error) error {
	var counts time.Time
	err := r.update(context.Background(), op, func(tx kv.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		m, err := of.mark(tx, name)
		counts = m.counts
		return err
	})
	if err == nil {
		time.Sleep(min(time.Second, time.Until(counts)))
	}
	return err
}
