package state

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

const day = 24 * time.Hour

// summary counts what is in a state.
func summary(t *testing.T, s *Server) Summary {
	t.Helper()
	sum, err := s.Summary()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// session records what a server records for a token that lives until then.
func session(t *testing.T, s *Server, identity string, serial int64, until time.Time) {
	t.Helper()
	err := first(s.Expect(t.Context(), until), s.AcceptID(t.Context(), identity, serial, 1))
	if err == nil {
		_, err = s.Renew(t.Context(), identity, serial, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPruningByItself runs a server for days: expired records go with the tokens they
// protect, without any call to Forget.
func TestPruningByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newServer(t)
		s.StartPruning(Pruning{Keep: day, Log: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range int64(100) {
			session(t, s, "device", i, time.Now().Add(day))
		}
		wantErr(t, first(s.AddEntity(pskEntity("gone")), s.RemoveEntity("gone"), s.RevokeEntity("bad"), s.RevokeUser("eve")), nil)
		wantErr(t, first(s.AddUser("ann", []byte("x")), s.RemoveUser("ann")), nil)
		time.Sleep(day)
		synctest.Wait()
		if sum := summary(t, s); sum.IDs != 100 || sum.Sequences != 100 || sum.EntitiesRemoved != 1 {
			t.Errorf("removed before their tokens expired: %+v", sum)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		want := Summary{EntitiesRevoked: 1, UsersRevoked: 1, UsersRemoved: 1}
		sum := summary(t, s)
		if sum != want {
			t.Errorf("after the tokens expired: %+v, want %+v", sum, want)
		}
		if !strings.Contains(log.String(), "tokens=100 names=1") {
			t.Errorf("log %q", log.String())
		}
		s.StopPruning() // and the bubble tells if pruning goes on
	})
}

// TestPruneKeepsLongLives changes the lifetime of tokens, up and down and across
// restarts: what a token of an earlier setting needs is kept.
func TestPruneKeepsLongLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		session(t, s, "long", 1, time.Now().Add(30*day))
		session(t, s, "short", 1, time.Now().Add(day))
		for range 29 {
			time.Sleep(day)
			s = reopen(t, s)
			session(t, s, "daily", rand.Int64N(1<<50), time.Now().Add(day))
			if _, err := s.Forget(t.Context(), time.Hour); err != nil {
				t.Fatal(err)
			}
			wantErr(t, s.AcceptID(t.Context(), "long", 1, 1), msl.ErrMessageReplayed)
		}
		time.Sleep(7 * day) // well past the long lifetimes
		session(t, s, "daily", 1, time.Now().Add(day))
		if _, err := s.Forget(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if sum := summary(t, s); sum.IDs != 1 {
			t.Errorf("%d records are kept for tokens that are gone", sum.IDs)
		}
		s.StopPruning()
	})
}

// TestExpectSeldomWrites counts the changes of a month of sessions.
func TestExpectSeldomWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		writes := 0
		for range 30 * 24 {
			time.Sleep(time.Hour)
			before := slices.Clone(s.keeps.all)
			for _, left := range []time.Duration{day, 23 * time.Hour, 7 * time.Minute, 0, -day} {
				wantErr(t, s.Expect(t.Context(), time.Now().Add(left)), nil)
			}
			if !slices.Equal(before, s.keeps.all) {
				writes++
			}
		}
		if writes == 0 || writes > 400 || len(s.keeps.all) > 8 {
			t.Errorf("%d changes, %d keeps", writes, len(s.keeps.all))
		}
		t.Logf("%d changes, %d keeps", writes, len(s.keeps.all))
		s.StopPruning()
	})
}

func TestJittered(t *testing.T) {
	for range 1000 {
		if d := jittered(10 * time.Hour); d < 9*time.Hour || d > 11*time.Hour {
			t.Fatalf("%v", d)
		}
		if d := jittered(time.Second); d < leastInterval-leastInterval/10 {
			t.Fatalf("%v", d)
		}
	}
}

// A held token is one that a client of the property test has.
type heldToken struct {
	identity         string
	serial, sequence int64
	until            time.Time
}

// TestPruneChangesNoVerdict compares a state that forgets whenever it may with one that
// never does, over years of messages, restarts and all kinds of settings: while a token
// is accepted at all, both answer alike.
func TestPruneChangesNoVerdict(t *testing.T) {
	seeds := uint64(2)
	if os.Getenv("MSL_SOAK") != "" {
		seeds = 50
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			p := &pruneGame{t: t, r: r, pruned: newServer(t), whole: &msl.MemoryState{}, life: day}
			forgotten := 0
			for range 1000 {
				time.Sleep(time.Duration(r.Int64N(int64(3 * time.Hour))))
				switch r.IntN(40) {
				case 0:
					p.life = time.Duration(1+r.IntN(300)) * time.Hour
				case 1:
					p.pruned = reopen(t, p.pruned)
				case 2, 3, 4, 5:
					f, err := p.pruned.Forget(t.Context(), 0)
					wantErr(t, err, nil)
					forgotten += f.Tokens
				default:
					p.message()
				}
			}
			if forgotten < 30 || p.replays < 20 || p.accepted < 100 {
				t.Errorf("seed %d: %d forgotten, %d replays, %d accepted: nothing was tried", seed, forgotten, p.replays, p.accepted)
			}
			t.Logf("seed %d: %d forgotten, %d replays, %d accepted", seed, forgotten, p.replays, p.accepted)
			p.pruned.StopPruning()
		})
	}
}

type pruneGame struct {
	t                 *testing.T
	r                 *rand.Rand
	pruned            *Server
	whole             *msl.MemoryState
	life              time.Duration
	held              []heldToken // all that ever were
	replays, accepted int
}

// message sends a message and judges it as a server would: with any earlier token, if
// it is still accepted.
func (p *pruneGame) message() {
	if len(p.held) == 0 || p.r.IntN(4) == 0 {
		p.issue(heldToken{identity: "d", serial: p.r.Int64N(1 << 50), sequence: 0})
		return
	}
	h := p.held[max(0, len(p.held)-1-int(p.r.ExpFloat64()*20))]
	if h.until.Before(time.Now()) {
		return
	}
	ctx := p.t.Context()
	wantErr(p.t, p.pruned.Expect(ctx, h.until), nil)
	if p.r.IntN(2) == 0 {
		id := int64(p.r.IntN(8))
		p.same(p.pruned.AcceptID(ctx, h.identity, h.serial, id), p.whole.AcceptID(ctx, h.identity, h.serial, id))
		return
	}
	wantErr(p.t, p.pruned.Expect(ctx, time.Now().Add(p.life)), nil)
	got, err := p.pruned.Renew(ctx, h.identity, h.serial, h.sequence)
	want, errWhole := p.whole.Renew(ctx, h.identity, h.serial, h.sequence)
	p.same(err, errWhole)
	if got != want {
		p.t.Errorf("renewed to %d, want %d", got, want)
	}
	if err == nil {
		p.issue(heldToken{h.identity, h.serial, got, time.Time{}})
	}
}

func (p *pruneGame) issue(h heldToken) {
	h.until = time.Now().Add(p.life)
	wantErr(p.t, p.pruned.Expect(p.t.Context(), h.until), nil)
	p.held = append(p.held, h)
}

func (p *pruneGame) same(got, want error) {
	p.t.Helper()
	if !errors.Is(got, want) || (got == nil) != (want == nil) {
		p.t.Errorf("verdict %v, want %v", got, want)
	}
	if want == nil {
		p.accepted++
	} else {
		p.replays++
	}
}

// TestPruneStalls measures how long a message waits while very many records are
// removed.
func TestPruneStalls(t *testing.T) {
	records := 4000
	if os.Getenv("MSL_SOAK") != "" {
		records = 200000
	}
	s, _ := inFile(t)
	for from := 0; from < records; from += 4000 {
		err := s.store.Update(t.Context(), func(tx kv.Tx) error {
			for range 4000 {
				key, _ := pairKey("device", rand.Int64N(1<<53))
				if err := tx.Put(tableIDs, key, largestID{1, time.Unix(1, 0)}.encode()); err != nil {
					return err
				}
			}
			return nil
		})
		wantErr(t, err, nil)
	}
	ctx, stop := context.WithCancel(t.Context())
	var times []time.Duration
	var messages sync.WaitGroup
	messages.Go(func() {
		for n := int64(1); ctx.Err() == nil; n++ {
			start := time.Now()
			if err := s.AcceptID(t.Context(), "live", 1, n); err != nil {
				t.Error(err)
			}
			times = append(times, time.Since(start))
		}
	})
	start := time.Now()
	f, err := s.Forget(t.Context(), 0)
	took := time.Since(start)
	stop()
	messages.Wait()
	if err != nil || f.Tokens < records*99/100 {
		t.Errorf("%+v, %v", f, err)
	}
	slices.Sort(times)
	t.Logf("%d records removed in %v; of %d messages meanwhile the median took %v, of a thousand one %v, the longest %v",
		f.Tokens, took, len(times), times[len(times)/2], times[len(times)*999/1000], times[len(times)-1])
}
