package state

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A turnstile combines concurrent steps of tokens into a shared transaction, since each
// one alone costs two requests: while a transaction is under way, further steps collect
// for the next. A single step does not wait for others. Each has its own outcome.
type turnstile struct {
	mu      sync.Mutex
	waiting []*tokenStep
	running bool
}

// A tokenStep replaces a record of a token, or refuses to. A refusal does not affect the
// steps of others.
type tokenStep struct {
	table string
	key   []byte
	next  func(old []byte) ([]byte, error) // may be called again

	made []byte          // last result of next
	ctx  context.Context // of the caller
	err  error
	done chan struct{} // closed when err is final
}

// maxTogether is how many steps share a transaction, each of which compares and changes
// one record: every store accepts that many.
const maxTogether = 64

// pass performs a step, and returns when it is done or ctx ends. It may still be
// performed after that.
func (t *turnstile) pass(ctx context.Context, store kv.Store, s *tokenStep) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.ctx, s.done = ctx, make(chan struct{})
	t.mu.Lock()
	t.waiting = append(t.waiting, s)
	if !t.running {
		t.running = true
		go t.run(store)
	}
	t.mu.Unlock()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run performs steps until none is waiting.
func (t *turnstile) run(store kv.Store) {
	for {
		t.mu.Lock()
		n := min(len(t.waiting), maxTogether)
		together := slices.Clone(t.waiting[:n])
		t.waiting = slices.Delete(t.waiting, 0, n)
		t.running = n > 0
		t.mu.Unlock()
		if n == 0 {
			return
		}
		makeSteps(store, together)
	}
}

// makeSteps performs steps in one transaction, unless all callers leave. An inauthentic
// record, with which nothing was changed, fails only the step of its token.
func makeSteps(store kv.Store, steps []*tokenStep) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var left atomic.Int64
	for _, s := range steps {
		defer context.AfterFunc(s.ctx, func() {
			if left.Add(1) == int64(len(steps)) {
				leave()
			}
		})()
	}
	err := store.Update(ctx, func(tx kv.Tx) error { return judgeSteps(tx, steps) })
	if errors.Is(err, kv.ErrForged) && len(steps) > 1 {
		for _, s := range steps {
			makeSteps(store, []*tokenStep{s})
		}
		return
	}
	for _, s := range steps {
		if err != nil {
			s.err = err
		}
		close(s.done)
	}
}

// judgeSteps performs steps in order: a later one of the same token sees the result of an
// earlier one.
func judgeSteps(tx kv.Tx, steps []*tokenStep) error {
	keys := map[string][][]byte{}
	for _, s := range steps {
		keys[s.table] = append(keys[s.table], s.key)
	}
	for table, all := range keys {
		if err := tx.Prefetch(table, all...); err != nil {
			return err
		}
	}
	for _, s := range steps {
		var err error
		if s.err, err = s.make(tx); err != nil {
			return err
		}
	}
	return nil
}

// make performs a step in a transaction, or returns why it is refused; err is an error of
// the store.
func (s *tokenStep) make(tx kv.Tx) (refused, err error) {
	old, err := tx.Get(s.table, s.key)
	if err != nil {
		return nil, err
	}
	if s.made, refused = s.next(old); refused != nil {
		return refused, nil
	}
	return nil, tx.Put(s.table, s.key, s.made)
}
