package state

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

// A quickStore is one that several servers share.
type quickStore struct {
	kvtest.Memory
	full  atomic.Bool
	tries atomic.Int32
}

func (s *quickStore) Update(ctx context.Context, fn func(kv.Tx) error) error {
	if s.tries.Add(1); s.full.Load() {
		return errors.New("the database is full")
	}
	return s.Memory.Update(ctx, fn)
}

func (s *quickStore) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	return s.View(ctx, fn)
}

// An operator uses a store that others share, as a command does.
func operator(t *testing.T, s kv.Shared) *Server {
	t.Helper()
	return serverIn(t, struct{ kv.Store }{s})
}

// A wrongClock is a store of servers whose clocks are ahead of that of everybody else.
type wrongClock struct {
	*quickStore
	ahead time.Duration
}

// Update changes the time that the server notes.
func (s *wrongClock) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return s.quickStore.Update(ctx, func(tx kv.Tx) error { return fn(&wrongTx{tx, s.ahead}) })
}

type wrongTx struct {
	kv.Tx
	ahead time.Duration
}

func (t *wrongTx) Put(table string, key, value []byte) error {
	if string(key) == notedKey {
		n, err := decodeInts(value, 1)
		if err != nil {
			return err
		}
		value = encodeInts(n[0] + int64(t.ahead/time.Second))
	}
	return t.Tx.Put(table, key, value)
}

// TestClockOfAnOperator has an operator, whose clock is right, ahead or behind, end the tokens of
// names: those that servers issued until then end, and those issued later count, by a server whose
// clock is a little apart from the others, too.
func TestClockOfAnOperator(t *testing.T) {
	change := map[string]func(s *Server) error{
		"entity": func(s *Server) error { return first(s.RemoveEntity("a"), s.AddEntity(pskEntity("a"))) },
		"user":   func(s *Server) error { return first(s.RemoveUser("ann"), s.AddUser("ann", []byte("a password"))) },
		"revoked": func(s *Server) error {
			return first(s.SetPassword("ann", []byte("x")), s.RevokeUser("ann"), s.UnrevokeUser("ann"))
		},
		"password": func(s *Server) error { return s.SetPassword("ann", []byte("another")) },
		"all": func(s *Server) error {
			at, err := s.Present(context.Background())
			return first(err, EndTokens(s.store, at))
		},
	}
	for _, ahead := range []time.Duration{0, 4 * time.Minute, -4 * time.Minute, time.Hour, -time.Hour, day, -day, year, -year} {
		for name, do := range change {
			synctest.Test(t, func(t *testing.T) {
				store := &quickStore{}
				server := serverIn(t, &wrongClock{store, ahead})
				server.StartPruning(Pruning{Keep: day})
				o := operator(t, store)
				wantErr(t, first(o.AddEntity(pskEntity("a")), o.AddUser("ann", []byte("a password"))), nil)
				time.Sleep(10*time.Minute + 17*time.Second)
				clock := func() time.Time { return time.Now().Add(ahead) } // of the server
				before := clock()
				wantErr(t, do(o), nil)
				user := name != "entity"
				counting := func(at time.Time) bool {
					e, u := counts(t, o, "a", "ann", at)
					return user && u || !user && e
				}
				if counting(before.Add(mostApart)) {
					t.Errorf("%s: with a server ahead by %v, a token of before counts", name, ahead)
				}
				if !counting(clock().Add(mostApart + noteEvery + 2*time.Second)) {
					t.Errorf("%s: with a server ahead by %v, no token counts that is issued from then on", name, ahead)
				}
				server.StopPruning()
			})
		}
	}
}

// TestClockOfOneServer has one of three servers be wrong by a day, and the operator be right.
func TestClockOfOneServer(t *testing.T) {
	for _, ahead := range []time.Duration{day, -day} {
		synctest.Test(t, func(t *testing.T) {
			store := &quickStore{}
			for _, ahead := range []time.Duration{0, 0, ahead} {
				server := serverIn(t, &wrongClock{store, ahead})
				server.StartPruning(Pruning{Keep: day})
				defer server.StopPruning()
				time.Sleep(70 * time.Millisecond)
			}
			o := operator(t, store)
			for range 10 {
				time.Sleep(time.Minute)
				now, err := o.moment(t.Context())
				if off := time.Until(now); err != nil || off < mostApart-time.Second || off > mostApart+noteEvery {
					t.Errorf("by %v: %v ahead, %v", ahead, off, err)
				}
			}
		})
	}
}

// TestClockOfAnother has another server whose clock is off: the one here knows by how much, until the
// clocks agree or the other one ends.
func TestClockOfAnother(t *testing.T) {
	for _, ahead := range []time.Duration{0, 4 * time.Minute, -4 * time.Minute, 11 * time.Minute, -11 * time.Minute, day} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			store := &quickStore{}
			other := &wrongClock{store, ahead}
			s, o := serverIn(t, store), serverIn(t, other)
			s.StartPruning(Pruning{Keep: day, Log: slog.New(slog.NewTextHandler(&log, nil))})
			time.Sleep(20*time.Second + 70*time.Millisecond)
			o.StartPruning(Pruning{Keep: day})
			time.Sleep(5 * time.Minute)
			want, lines := ahead, 1
			if ahead.Abs() < mostApart {
				want, lines = 0, 0
			}
			if got := s.ClockApart(); (got-want).Abs() > 2*time.Second || want == 0 && got != 0 {
				t.Errorf("%v apart, want %v", got, want)
			}
			o.StopPruning()
			wantErr(t, s.note(t.Context(), time.Now().Add(ahead)), nil)
			if got, err := s.Ahead(t.Context()); err != nil || got != max(want, 0) && (got-want).Abs() > time.Second {
				t.Errorf("%v ahead, want %v: %v", got, want, err)
			}
			time.Sleep(5 * time.Minute)
			if got := s.ClockApart(); got != 0 {
				t.Errorf("%v apart from a server that has ended", got)
			}
			s.StopPruning()
			if n := strings.Count(log.String(), "level=WARN msg=\"the clock here and that of another server of this state differ"); n != lines {
				t.Errorf("by %v: %s", ahead, log.String())
			}
		})
	}
}

// TestClocksOfSeveral has servers note the time in turn: each one whose clock differs from that of
// another says so once, for as long as both run, however many others agree with it.
func TestClocksOfSeveral(t *testing.T) {
	for _, clocks := range [][]time.Duration{{0, day, 0}, {0, 0, day, day}, {0, 0, 0, -day, 0}, {0, day, -day}} {
		synctest.Test(t, func(t *testing.T) {
			store := &quickStore{}
			servers, logs := make([]*Server, len(clocks)), make([]bytes.Buffer, len(clocks))
			for i, ahead := range clocks {
				servers[i] = serverIn(t, &wrongClock{store, ahead})
				servers[i].StartPruning(Pruning{Keep: day, Log: slog.New(slog.NewTextHandler(&logs[i], nil))})
				defer servers[i].StopPruning()
				time.Sleep(7*time.Second + 70*time.Millisecond)
			}
			time.Sleep(3 * time.Minute)
			for range 100 {
				time.Sleep(7 * time.Second)
				if got := servers[0].ClockApart().Abs(); (got - day).Abs() > 2*time.Second {
					t.Fatalf("%v: %v apart", clocks, got)
				}
			}
			for i, ahead := range clocks {
				if ahead != 0 {
					servers[i].StopPruning()
				}
			}
			time.Sleep(5 * time.Minute)
			for i, ahead := range clocks { // the log of a wrong one is that of its true clock
				if got := logs[i].String(); ahead == 0 && (strings.Count(got, "level=WARN") != 1 || strings.Count(got, "level=INFO msg=\"the clock of no other server of this state differs anymore\"") != 1) {
					t.Errorf("%v, server %d: %s", clocks, i, got)
				}
			}
		})
	}
}

// TestClockOfPaused has a process be paused for ten minutes, after which it sees some of the times
// noted meanwhile, one after another.
func TestClockOfPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clocks
		var log bytes.Buffer
		began := time.Now()
		for i := range 40 {
			if i == 20 {
				time.Sleep(10 * time.Minute)
			}
			late := 0
			if i >= 20 {
				late = max(0, 23-i)
			}
			c.compare(time.Now().Add(-time.Duration(3*late)*time.Minute).Truncate(time.Second), time.Now(), slog.New(slog.NewTextHandler(&log, nil)))
			if late > 0 {
				time.Sleep(heedEvery)
			} else {
				time.Sleep(noteEvery)
			}
			if got := c.ClockApart(); got != 0 {
				t.Errorf("after %v: %v apart", time.Since(began), got)
			}
		}
		if log.Len() > 0 {
			t.Error(log.String())
		}
	})
}

// TestClockWithoutServers has no server answer: it is stopped, or of an earlier version, and may
// have issued tokens since it noted the time.
func TestClockWithoutServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &quickStore{}
		o := operator(t, store)
		moment := func() time.Duration {
			began := time.Now()
			at, err := o.moment(t.Context())
			if took := time.Since(began); err != nil || took > answerTime+time.Second {
				t.Errorf("it took %v: %v", took, err)
			}
			return time.Until(at)
		}
		if off := moment(); off != 0 {
			t.Errorf("before the first server: %v ahead", off)
		}
		wantErr(t, o.note(t.Context(), time.Now()), nil)
		time.Sleep(time.Minute)
		if off := moment(); off != mostApart {
			t.Errorf("after a minute: %v ahead", off)
		}
		time.Sleep(year)
		if off := moment(); off != mostApart {
			t.Errorf("after a year: %v ahead", off)
		}
		wantErr(t, o.note(t.Context(), time.Now().Add(day)), nil)
		if off := moment(); off < day {
			t.Errorf("when the last server was ahead by a day: %v", off)
		}
	})
}

// TestNotedOnlyShared leaves a state in a file alone.
func TestNotedOnlyShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.StartPruning(Pruning{Keep: day})
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if at, err := s.noted(t.Context()); !at.IsZero() || err != nil {
			t.Errorf("noted %v: %v", at, err)
		}
		s.StopPruning()
	})
}

// TestNotedFails goes on after etcd was full, and does not try all the time until then.
func TestNotedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &quickStore{}
		store.full.Store(true)
		s := serverIn(t, store)
		s.StartPruning(Pruning{Keep: day})
		time.Sleep(time.Minute)
		store.full.Store(false)
		if n := store.tries.Load(); n > 20 {
			t.Errorf("%d tries a minute", n)
		}
		time.Sleep(2 * restAfterError)
		if at, err := s.noted(t.Context()); at.IsZero() || err != nil {
			t.Errorf("noted %v: %v", at, err)
		}
		s.StopPruning()
	})
}

// TestUsedUntil refuses to end the tokens of a state by a clock that is behind: the state shows that
// newer ones exist, by the ids and renewals in it, and by when a server looked for old records.
func TestUsedUntil(t *testing.T) {
	for name, use := range map[string]func(*Server) error{
		"id":     func(s *Server) error { return s.AcceptID(context.Background(), "device", 1, 1) },
		"renew":  func(s *Server) error { _, err := s.Renew(context.Background(), "device", 1, 0); return err },
		"server": func(s *Server) error { _, err := s.aging.look(context.Background(), time.Hour); return err },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := serverIn(t, &kvtest.Memory{})
			time.Sleep(time.Hour)
			if err := UsedUntil(t.Context(), s, time.Now()); err != nil {
				t.Errorf("%s: nobody used it: %v", name, err)
			}
			if err := use(s); err != nil {
				t.Fatal(err)
			}
			for _, behind := range []time.Duration{-365 * 24 * time.Hour, 0, mostApart, mostApart + 2*time.Second, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
				err := UsedUntil(t.Context(), s, time.Now().Add(-behind))
				if errors.Is(err, ErrClockBehind) != (behind > mostApart) || !errors.Is(err, ErrClockBehind) && err != nil {
					t.Errorf("%s, a clock that is %v behind: %v", name, behind, err)
				}
			}
		})
	}
}
