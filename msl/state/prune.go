package state

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

const (
	// pruneAtATime bounds how long pruning blocks other writers: a token has records in
	// two tables. lookAtATime bounds how long it keeps the file from growing.
	pruneAtATime = kv.MaxChanges / 2
	lookAtATime  = 5000
	// leastInterval is the minimum time between two prunings, and firstRest the maximum
	// before the first.
	leastInterval = time.Minute
	firstRest     = 5 * time.Minute
)

// Pruning configures how a [Server] forgets automatically.
type Pruning struct {
	// Keep is how long a record of an earlier version is kept after it was touched: the
	// lifetime of a master token plus the time in which it can still be renewed. Records
	// of longer-lived tokens are kept longer (see [Server.Expect]).
	Keep time.Duration
	// Interval is the approximate pause between prunings, plus or minus a tenth; zero
	// means a 24th of Keep, and less than a minute means a minute. With more than an hour,
	// the clocks of servers must be apart by less than an hour.
	Interval time.Duration
	Log      *slog.Logger // nil means none
}

// pruning is what StopPruning stops.
type pruning struct {
	mu   sync.Mutex
	stop context.CancelFunc
	done chan struct{}
}

// StartPruning starts removing periodically, until [Server.StopPruning], what no accepted
// token needs anymore. It must be called only once.
func (s *Server) StartPruning(p Pruning) {
	ctx, stop := context.WithCancel(context.Background())
	s.pruning.mu.Lock()
	defer s.pruning.mu.Unlock()
	s.pruning.stop, s.pruning.done = stop, make(chan struct{})
	if p.Interval == 0 {
		p.Interval = p.Keep / 24
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	go s.pruneUntil(ctx, p, s.pruning.done)
}

// StopPruning stops what [Server.StartPruning] started, if anything.
func (s *Server) StopPruning() {
	s.pruning.mu.Lock()
	defer s.pruning.mu.Unlock()
	if s.pruning.stop != nil {
		s.pruning.stop()
		<-s.pruning.done
	}
}

func (s *Server) pruneUntil(ctx context.Context, p Pruning, done chan<- struct{}) {
	defer close(done)
	var noting sync.WaitGroup
	noting.Go(func() { s.records.noteUntil(ctx, &s.clocks, p.Log) })
	defer noting.Wait()
	p.Log.Debug("old records are removed from the state", "kept", p.Keep, "every", max(p.Interval, leastInterval))
	if err := s.aging.begin(ctx); err != nil && ctx.Err() == nil {
		p.Log.Warn("it could not be noted when the first server ran", "error", err)
	}
	for wait := min(p.Interval, firstRest); ; wait = p.Interval {
		rest := time.NewTimer(jittered(wait))
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
		s.pruneOnce(ctx, p)
	}
}

// jittered spreads the work of servers started at the same time.
func jittered(d time.Duration) time.Duration {
	d = max(d, leastInterval)
	return d - d/10 + rand.N(d/5+1)
}

func (s *Server) pruneOnce(ctx context.Context, p Pruning) {
	start := time.Now()
	var f Forgotten
	missed, err := s.aging.look(ctx, p.Keep)
	if err == nil {
		f, err = s.Forget(ctx, p.Keep)
	}
	switch {
	case missed > 0:
		p.Log.Warn("the clock was set forward, or no server ran for a while: old records are kept that much longer", "by", missed.Round(time.Second))
	case missed < 0:
		p.Log.Warn("the clock was set back, or that of another server is ahead: check the clocks of the servers", "by", -missed.Round(time.Second))
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.Log.Error("old records cannot be removed from the state", "error", err)
	case f.Tokens+f.Names > 0:
		p.Log.Info("removed old records from the state", "tokens", f.Tokens, "names", f.Names, "took", time.Since(start))
	default:
		p.Log.Debug("no old records in the state", "took", time.Since(start))
	}
}

// Forgotten counts the removed records.
type Forgotten struct {
	Tokens int `json:"tokens"` // records of master tokens
	Names  int `json:"names"`  // marks of removed entities
}

// Forget immediately removes what no accepted token needs anymore, in small steps between
// which others can write. keep is as in [Pruning]. It removes the records of master
// tokens, and the marks of entities that were removed before the oldest accepted token
// was issued. Revocations stay until they are lifted. The marks of removed users also
// stay, since a user ID token is renewed as long as its master token is. Time in which no
// server lived, or by which a clock was set, does not count.
func (s *Server) Forget(ctx context.Context, keep time.Duration) (f Forgotten, err error) {
	c, err := s.Clock(ctx, keep)
	if err != nil {
		return f, err
	}
	olderThan := c.Ended
	if f.Tokens, err = s.prune(ctx, olderThan); err != nil {
		return f, err
	}
	marks := sweep{s.records, tableEntityMarks, []string{tableEntityMarks}, func(tx kv.Reader, k []byte) (bool, error) {
		return entityRoll.forgotten(tx, string(k), olderThan)
	}}
	f.Names, err = marks.run(ctx)
	return f, err
}

// Prune forgets the non-replayable ids and sequence numbers of master tokens that were
// neither renewed nor used with a non-replayable id since olderThan, and returns the
// number of those tokens. Forgotten ids and renewals are accepted again, so olderThan
// must be further back than the oldest token that is still accepted or renewed.
// [Server.Forget] determines that time itself.
func (s *Server) Prune(olderThan time.Time) (int, error) {
	return s.prune(context.Background(), olderThan)
}

func (s *Server) prune(ctx context.Context, olderThan time.Time) (total int, err error) {
	old := func(tx kv.Reader, k []byte) (bool, error) {
		last, err := touched(tx, k)
		return err == nil && last.Before(olderThan), err
	}
	both := []string{tableIDs, tableSequences}
	for _, table := range both {
		n, err := sweep{s.records, table, both, old}.run(ctx)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// A sweep removes records from all tables in from whose key is old and is in table.
type sweep struct {
	records
	table string
	from  []string
	old   func(tx kv.Reader, key []byte) (bool, error)
}

func (s sweep) run(ctx context.Context) (total int, err error) {
	for next, more := []byte(nil), true; more; more = next != nil {
		var keys [][]byte
		if keys, next, err = s.lookFor(ctx, next); err != nil {
			return total, err
		}
		n, err := s.forget(ctx, keys)
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// lookFor finds keys to forget, starting at from, and returns where to continue: nil at
// the end.
func (s sweep) lookFor(ctx context.Context, from []byte) (keys [][]byte, next []byte, err error) {
	err = s.view(ctx, "look for old records", func(tx kv.Reader) error {
		looked := 0
		keys, next = nil, nil
		for p, err := range kv.All(tx, s.table, from, nil) {
			if err != nil {
				return err
			}
			if looked++; len(keys) == pruneAtATime || looked > lookAtATime {
				next = bytes.Clone(p.Key)
				return nil
			}
			gone, err := s.old(tx, p.Key)
			if err != nil {
				return err
			}
			if gone {
				keys = append(keys, bytes.Clone(p.Key))
			}
		}
		return nil
	})
	return keys, next, err
}

// forget removes the records of keys, except those touched in the meantime.
func (s sweep) forget(ctx context.Context, keys [][]byte) (n int, err error) {
	if len(keys) == 0 {
		return 0, nil
	}
	err = s.update(ctx, "remove old records", func(tx kv.Tx) error {
		n = 0
		for _, k := range keys {
			gone, err := s.old(tx, k)
			if err != nil {
				return err
			}
			if !gone {
				continue
			}
			for _, table := range s.from {
				if err := tx.Delete(table, k); err != nil {
					return err
				}
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// touched returns when a token's records were last changed. A renewed token keeps its
// serial number, so its ids must be kept too.
func touched(tx kv.Reader, key []byte) (time.Time, error) {
	var last time.Time
	if payload, err := tx.Get(tableIDs, key); err != nil {
		return last, err
	} else if payload != nil {
		l, err := decodeLargestID(payload)
		if err != nil {
			return last, err
		}
		last = l.touched
	}
	if payload, err := tx.Get(tableSequences, key); err != nil {
		return last, err
	} else if payload != nil {
		q, err := decodeNewestSequence(payload)
		if err != nil {
			return last, err
		}
		last = later(last, q.touched)
	}
	return last, nil
}
