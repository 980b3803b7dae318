//go:build !noetcd

package etcdkv

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

var (
	// errBehind: a watch does not deliver changes, for example because its member has
	// stalled or is cut off from the others.
	errBehind = errors.New("etcdkv: the watch is behind")
	// errEnded: a watch delivered all changes, and then ended.
	errEnded = errors.New("etcdkv: the watch ended")
)

// load copies the tables as of one moment.
func (f *Follower) load(ctx context.Context) error {
	began := time.Now()
	var copied tables
	var revision int64
	err := f.repeat(ctx, func() (err error) {
		s := &snapshot{ctx: ctx, db: f.DB}
		copied, err = copyOf(s, f.tables)
		revision = s.revision
		return s.outcome(err)
	})
	if err != nil {
		return err
	}
	f.answered(func() {
		f.observeAll(copied)
		f.copied, f.applied, f.fresh, f.broken = copied, revision, began, nil
	})
	return nil
}

// run follows changes until ctx ends. A watch that ended begins again after the last change
// in the copy, which may be large. If that one fails soon, or a watch is behind, the copy is
// made anew.
func (f *Follower) run(ctx context.Context) {
	defer close(f.done)
	for try := 0; ; try++ {
		began := time.Now()
		ended := f.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > f.Staleness {
			try = 0
		}
		if try == 0 && errors.Is(ended, errEnded) || errors.Is(ended, errOther) && pause(ctx, try) {
			continue
		}
		for err := f.load(ctx); err != nil; err = f.load(ctx) {
			f.note(ctx, err)
			if !pause(ctx, try+5) {
				return
			}
		}
	}
}

// note records why the copy could not be made or checked. If the store is damaged or
// gone, its copy is no longer used. When a follower ends, nothing is lost.
func (f *Follower) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	lost := f.failed == nil
	f.set(func() {
		f.failed = err
		if errors.Is(err, kv.ErrDamaged) || errors.Is(err, kv.ErrEmpty) {
			f.broken = err
		}
	})
	if lost && f.Notice != nil {
		f.Notice(err)
	}
}

// watch applies changes to the copy, and checks regularly that it has all of them. It
// returns if it does not, or if the watch ends.
func (f *Follower) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	watcher := clientv3.NewWatcher(f.client) // a separate stream, perhaps to another member
	checks := f.startChecks(ctx)
	defer func() {
		cancel()
		watcher.Close()
		for range checks {
		}
	}()
	events := watcher.Watch(ctx, f.prefix+"/", clientv3.WithRange(f.prefix+apart), clientv3.WithRev(f.applied+1), clientv3.WithCreatedNotify())
	var open check // the oldest check that found more than the copy has
	for {
		select {
		case answer, ok := <-events:
			if !ok || answer.Err() != nil {
				return errors.Join(errEnded, answer.Err())
			}
			if err := f.recognize(answer.Header); err != nil {
				return err
			}
			if err := f.apply(answer.Events); err != nil {
				f.note(ctx, err)
				return err
			}
		case c := <-checks:
			switch {
			case c.err != nil:
				f.note(ctx, f.explain(c.err))
			case !open.began.After(f.fresh):
				open = c
			case c.began.Sub(open.began) > f.interval():
				return errBehind
			}
		}
		f.confirm(open)
	}
}

// interval is how often the copy is checked.
func (f *Follower) interval() time.Duration {
	return min(time.Second, max(f.Staleness/4, 10*time.Millisecond))
}

// A check is the result of a request: the newest revision of the copied tables.
type check struct {
	began  time.Time
	newest int64
	err    error
}

// confirm records that the copy was up to date when a check began.
func (f *Follower) confirm(c check) {
	if c.newest > f.applied || !c.began.After(f.fresh) {
		return
	}
	f.answered(func() { f.fresh = c.began })
}

// answered changes fields after an answer of etcd, and reports it if etcd answers again.
// The state is already updated when it is reported.
func (f *Follower) answered(change func()) {
	back := f.failed != nil
	f.set(func() {
		change()
		f.failed = nil
	})
	if back && f.Notice != nil {
		f.Notice(nil)
	}
}

// startChecks repeatedly asks for the newest revision, until ctx ends.
func (f *Follower) startChecks(ctx context.Context) <-chan check {
	checks := make(chan check)
	go func() {
		defer close(checks)
		tick := time.NewTicker(f.interval())
		defer tick.Stop()
		for {
			select {
			case checks <- f.check(ctx):
			case <-ctx.Done():
				return
			}
			select {
			case <-tick.C:
			case <-f.now:
			case <-ctx.Done():
				return
			}
		}
	}()
	return checks
}

// check asks the majority of the members.
func (f *Follower) check(ctx context.Context) check {
	c := check{began: time.Now()}
	before, own := f.newest.Load(), f.own.Load()
	c.err = f.ask(ctx, func(ctx context.Context) error {
		answer, err := f.client.Txn(ctx).If(f.exists()).Then(clientv3.OpGet(f.key(news, "")), f.marks.newest()).Commit()
		switch {
		case err != nil:
			return err
		case !answer.Succeeded:
			return f.errGone()
		}
		c.newest = newestOf(answer.Responses[0])
		return cmp.Or(f.see(before, answer.Header.Revision), f.seeOwn(own, newestOf(answer.Responses[1])))
	})
	return c
}

// newestOf returns the revision of the only record that was read, or 0 if there is none.
func newestOf(r *etcdserverpb.ResponseOp) int64 {
	if found := r.GetResponseRange().Kvs; len(found) > 0 {
		return found[0].ModRevision
	}
	return 0
}

// apply makes changes in the copy, those of one revision together.
func (f *Follower) apply(events []*clientv3.Event) (err error) {
	if len(events) == 0 {
		return nil
	}
	f.set(func() {
		for _, e := range events {
			if err = f.applyOne(e); err != nil {
				return
			}
		}
		f.applied = events[len(events)-1].Kv.ModRevision
	})
	return err
}

func (f *Follower) applyOne(e *clientv3.Event) error {
	table, key, ok := f.copiedAs(e.Kv.Key)
	if !ok {
		return nil
	}
	old, _ := f.copied.Get(table, key)
	if e.Type == mvccpb.DELETE {
		f.observe(table, key, old, nil)
		f.copied[table] = f.copied[table].drop(key)
		return nil
	}
	value, ok := kv.Unframe(table, key, e.Kv.Value)
	if !ok {
		return fail(kv.ErrDamaged, "a record in %q does not match its checksum", table)
	}
	f.observe(table, key, old, value)
	f.copied[table] = f.copied[table].put(kv.Pair{Key: key, Value: value})
	return nil
}

func (f *Follower) observe(table string, key, old, value []byte) {
	if f.Observer != nil {
		f.Observer.Changed(table, key, old, value)
	}
}

// observeAll informs the observer of a new copy.
func (f *Follower) observeAll(copied tables) {
	if f.Observer == nil {
		return
	}
	f.Observer.Reset()
	for table, all := range copied {
		for _, p := range all {
			f.Observer.Changed(table, p.Key, nil, p.Value)
		}
	}
}

// copiedAs returns the table and key of an etcd key.
func (f *Follower) copiedAs(at []byte) (table string, key []byte, ok bool) {
	name, key, _ := bytes.Cut(bytes.TrimPrefix(at, []byte(f.prefix)), []byte("/"))
	_, ok = f.copied[string(name)]
	return string(name), key, ok
}
