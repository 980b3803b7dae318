package state

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// The records of a token are needed until no token of its serial number is accepted
// any more. The records contain the time they were last touched. How long they are kept
// after that follows from the tokens presented: the code that checks a token first
// reports until when the token will be accepted.

// A keep says that until a given time, records are kept for a given duration after they
// were touched.
type keep struct {
	long  time.Duration
	until time.Time
}

// keeps holds those in force, the shortest first. There are several if token lifetimes
// have changed or differ between issuers.
type keeps struct {
	mu  sync.Mutex
	all []keep
}

const (
	keepKey = "keep" // in the settings
	// keepSlack allows for messages that are under way, truncated seconds and clocks
	// that were corrected.
	keepSlack = time.Hour
)

// Expect implements msl.Forgetter. It writes only if a token outlives earlier ones,
// which happens a few times per token lifetime.
func (t *Tokens) Expect(ctx context.Context, until time.Time) error {
	now := time.Now()
	if !until.After(now) {
		return nil
	}
	t.keeps.mu.Lock()
	defer t.keeps.mu.Unlock()
	if covered(t.keeps.all, until.Sub(now), until) {
		return nil
	}
	all := withKeep(t.keeps.all, now, until)
	err := t.update(ctx, "expect a token", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(keepKey), encodeKeeps(all))
	})
	if err != nil {
		return err
	}
	t.keeps.all = all
	return nil
}

func covered(all []keep, long time.Duration, until time.Time) bool {
	return slices.ContainsFunc(all, func(k keep) bool { return k.long >= long && !k.until.Before(until) })
}

// withKeep adds a token that is accepted until the given time. A token that lives about
// as long as those of an existing keep extends it, with some to spare; no token extends
// a keep that is far longer than it needs.
func withKeep(old []keep, now, until time.Time) []keep {
	long := until.Sub(now)
	spare := keep{long: (long + long/64).Truncate(time.Second) + time.Minute, until: until.Add(long / 8).Truncate(time.Second).Add(time.Minute)}
	var all []keep
	added := false
	for _, k := range old {
		if !k.until.After(now) {
			continue
		}
		if !added && k.long >= long && k.long/2 <= long {
			k.until, added = later(k.until, spare.until), true
		}
		all = append(all, k)
	}
	if !added {
		all = append(all, spare)
	}
	slices.SortFunc(all, func(a, b keep) int { return int(a.long/time.Second - b.long/time.Second) })
	return all
}

// longest returns how long records are kept now, at least base.
func (k *keeps) longest(now time.Time, base time.Duration) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, k := range k.all {
		if k.until.After(now) {
			base = max(base, k.long)
		}
	}
	return base + keepSlack
}

func encodeKeeps(all []keep) []byte {
	var n []int64
	for _, k := range all {
		n = append(n, int64(k.long/time.Second), seconds(k.until))
	}
	return encodeInts(n...)
}

func decodeKeeps(b []byte) ([]keep, error) {
	n, err := decodeInts(b, len(b)/16*2)
	if err != nil {
		return nil, err
	}
	var all []keep
	for ; len(n) > 0; n = n[2:] {
		if n[0] > int64(1<<62/time.Second) {
			return nil, fmt.Errorf("%w: a time is too long", ErrDamaged)
		}
		all = append(all, keep{time.Duration(n[0]) * time.Second, time.Unix(n[1], 0)})
	}
	return all, nil
}
