package state

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

const year = 365 * day

// TestClockAhead opens a state again after a year in which no server ran, or with a clock
// that is ahead by a year: nobody can tell. What tokens needed before that is kept until a
// server has lived as long as it is needed.
func TestClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := Pruning{Keep: day, Log: slog.New(slog.NewTextHandler(&log, nil))}
		s := newServer(t)
		s.StartPruning(p)
		time.Sleep(time.Hour)
		session(t, s, "device", 1, time.Now().Add(day))
		wantErr(t, first(s.AddEntity(pskEntity("gone")), s.RemoveEntity("gone")), nil)
		s.StopPruning()
		time.Sleep(year)
		s = reopen(t, s)
		s.StartPruning(p)
		time.Sleep(day)
		synctest.Wait()
		f, err := s.Forget(t.Context(), day) // as an operator does
		if sum := summary(t, s); sum.IDs != 1 || sum.Sequences != 1 || sum.EntitiesRemoved != 1 || f != (Forgotten{}) || err != nil {
			t.Errorf("%+v are there, and %+v were removed: %v", sum, f, err)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if sum := summary(t, s); sum != (Summary{}) {
			t.Errorf("after the server has lived long enough there are %+v", sum)
		}
		s.StopPruning()
		if !strings.Contains(log.String(), "the clock was set forward") {
			t.Errorf("log %q", log.String())
		}
	})
}

// TestClockAheadOfKeeps is TestClockAhead for a token that lives longer than those that the
// server issues.
func TestClockAheadOfKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.StartPruning(Pruning{Keep: day})
		session(t, s, "device", 1, time.Now().Add(10*day))
		time.Sleep(2 * time.Hour)
		s = reopen(t, s)
		time.Sleep(year)
		s = reopen(t, s)
		s.StartPruning(Pruning{Keep: day})
		session(t, s, "other", 2, time.Now().Add(day))
		time.Sleep(8 * day)
		synctest.Wait()
		if sum := summary(t, s); sum.IDs < 1 || sum.Sequences < 1 {
			t.Errorf("after eight of ten days there are %+v", sum)
		}
		time.Sleep(20 * day)
		synctest.Wait()
		if sum := summary(t, s); sum != (Summary{}) {
			t.Errorf("after all that there are %+v", sum)
		}
		s.StopPruning()
	})
}

// TestClockBack opens a state that a server with a clock ahead by a year used.
func TestClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newServer(t)
		ahead := time.Now().Add(year)
		wrong := chronicle{ahead, []lapse{{ahead.Add(-time.Hour), year}}}
		wantErr(t, s.store.Update(t.Context(), func(tx kv.Tx) error {
			return tx.Put(kv.Settings, []byte(chronicleKey), wrong.encode())
		}), nil)
		session(t, s, "device", 1, time.Now().Add(day))
		s.StartPruning(Pruning{Keep: day, Log: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(day)
		synctest.Wait()
		if sum := summary(t, s); sum.IDs != 1 {
			t.Errorf("%+v", sum)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if sum := summary(t, s); sum != (Summary{}) {
			t.Errorf("after a day there are %+v", sum)
		}
		s.StopPruning()
		if !strings.Contains(log.String(), "the clock was set back") {
			t.Errorf("log %q", log.String())
		}
	})
}

// A looker is a server with a clock of its own.
type looker struct {
	ahead  time.Duration
	looked time.Time // in truth
}

// TestClocksApart has servers look for old records every hour. One has a wrong clock, now and
// then another one, and all begin anew at times: none takes for old what is not in truth, by
// more than an hour.
func TestClocksApart(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const long = 10 * day
	for range 200 {
		now := time.Unix(1e9, 0)
		servers := []looker{{0, now}, {0, now}, {0, now}}
		c := chronicle{}
		for i := range 2000 {
			now = now.Add(time.Duration(random.Int64N(int64(20 * time.Minute))).Truncate(time.Second))
			s := &servers[i%3]
			switch random.IntN(20) {
			case 0:
				servers[2].ahead = []time.Duration{0, time.Hour, 2 * day, year, -time.Hour, -year}[random.IntN(6)]
			case 1:
				s.looked = now
			}
			clock := now.Add(s.ahead)
			c = c.at(clock, now.Sub(s.looked))
			s.looked = now
			if then := c.aged(clock, long); then.After(now.Add(-long + keepSlack + leastLapse)) {
				t.Fatalf("with a clock ahead by %v, %v counts as old, only %v ago", s.ahead, then, now.Sub(then))
			}
			c = c.since(c.aged(clock, long))
		}
	}
}

// TestManyLapses joins the oldest lapses: nothing ages by that.
func TestManyLapses(t *testing.T) {
	c, now := chronicle{looked: time.Unix(1e9, 0)}, time.Unix(1e9, 0)
	for range 3 * maxLapses {
		c = c.at(now.Add(time.Hour), time.Hour) // the server lives for an hour
		now = now.Add(2 * time.Hour)
		c = c.at(now, 0) // and another one comes an hour later
	}
	if got := c.aged(now, day); len(c.lapses) != maxLapses || !got.Equal(now.Add(-2*day)) {
		t.Errorf("%d lapses, and %v for a day", len(c.lapses), now.Sub(got))
	}
	if got := c.aged(now, 1000*day); !got.Equal(now.Add(-1000*day - 3*maxLapses*time.Hour)) {
		t.Errorf("%v for a thousand days", now.Sub(got))
	}
	if all := c.since(now.Add(-10 * time.Hour)).lapses; len(all) != 5 || !slices.Equal(all, c.lapses[maxLapses-5:]) {
		t.Errorf("%d lapses matter", len(all))
	}
}

// TestCountsAhead changes a password and brings an entity back while the clock is ahead by a
// year. When it is right again, nobody's tokens count, until an operator says so. A time
// that a server's clock has reached stays, whatever the clock of the operator.
func TestCountsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		ahead := mark{revoked: true, since: time.Now(), counts: time.Now().Add(year)}
		wantErr(t, s.store.Update(t.Context(), func(tx kv.Tx) error {
			return first(tx.Put(tableEntityMarks, []byte("a"), ahead.encode()), tx.Put(tableUserMarks, []byte("ann"), ahead.encode()))
		}), nil)
		wantErr(t, first(s.UnrevokeEntity("a"), s.UnrevokeUser("ann")), nil)
		if e, u := counts(t, s, "a", "ann", time.Now()); e || u {
			t.Error("tokens of the same second count")
		}
		time.Sleep(time.Second)
		if e, u := counts(t, s, "a", "ann", time.Now()); !e || !u {
			t.Errorf("tokens of now count: entity %v, user %v", e, u)
		}
		wantErr(t, s.store.Update(t.Context(), func(tx kv.Tx) error {
			return first(tx.Put(tableUserMarks, []byte("ann"), ahead.encode()),
				tx.Put(kv.Settings, []byte(chronicleKey), chronicle{looked: ahead.counts.Add(time.Hour)}.encode()))
		}), nil)
		wantErr(t, s.UnrevokeUser("ann"), nil)
		if _, u := counts(t, s, "a", "ann", ahead.counts.Add(-time.Second)); u {
			t.Error("by a clock that is behind, tokens of before the change count again")
		}
	})
}

// TestClockOfACommand has a command with a clock that is ahead, or behind, ask when tokens
// ended: the servers lived only for some time since they were issued.
func TestClockOfACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.StartPruning(Pruning{Keep: day})
		time.Sleep(time.Second) // too short to look for old records
		s.StopPruning()
		began := time.Now()
		for _, ahead := range []time.Duration{time.Minute, day, year} {
			time.Sleep(ahead)
			s = reopen(t, s)
			c, err := s.Clock(t.Context(), day)
			if !c.Now.Equal(time.Now()) || c.Ended.After(began.Add(-day)) || err != nil {
				t.Errorf("ahead by %v: %+v, %v", ahead, c, err)
			}
		}
		looked := time.Now().Add(day)
		wantErr(t, s.store.Update(t.Context(), func(tx kv.Tx) error {
			return tx.Put(kv.Settings, []byte(chronicleKey), chronicle{looked: looked}.encode())
		}), nil)
		if c, err := s.Clock(t.Context(), day); c.Now.Unix() != looked.Unix() || c.Ended.After(time.Now().Add(-day)) || err != nil {
			t.Errorf("behind: %+v, %v", c, err)
		}
	})
}
