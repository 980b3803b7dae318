package state

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// The records of a token are needed until no token with its serial number is accepted
// anymore. The records contain the time they were last touched. How long they are kept
// after that depends on the tokens presented: the code that checks a token first reports
// until when it will be accepted.

// A keep says that until a given time, records are kept for a given duration after they
// were touched.
type keep struct {
	long  time.Duration
	until time.Time
}

// keeps holds those in force, shortest first. There are several if token lifetimes have
// changed or differ between issuers.
type keeps struct {
	mu  sync.Mutex
	all []keep
}

const (
	keepKey = "keep" // in the settings
	// keepSlack allows for messages under way, truncated seconds and corrected clocks.
	keepSlack = time.Hour
	// keepMost is the longest time that records are kept after they were touched. A token
	// may claim a longer life than a duration can hold (292 years).
	keepMost = 100 * 365 * 24 * time.Hour
)

// lives returns how long the records of a token that is accepted until then are kept.
func lives(now, until time.Time) time.Duration { return min(until.Sub(now), keepMost) }

// Expect implements msl.Forgetter. It writes only if a token outlives earlier ones,
// which happens a few times per token lifetime.
func (t *Tokens) Expect(ctx context.Context, until time.Time) error {
	now := time.Now()
	if !until.After(now) || t.keeps.cover(now, until) {
		return nil
	}
	var all []keep
	err := t.update(ctx, "expect a token", func(tx kv.Tx) (err error) {
		if all, err = readKeeps(tx); err != nil || covered(all, lives(now, until), until) {
			return err
		}
		c, err := readChronicle(tx)
		if err != nil {
			return err
		}
		all = withKeep(inForce(all, c.earliest(now)), now, until)
		return tx.Put(kv.Settings, []byte(keepKey), encodeKeeps(all))
	})
	if err != nil {
		return err
	}
	t.keeps.set(all)
	return nil
}

// cover reports whether a token that is accepted until then needs no further keep. Other
// servers sharing the state may know more, but remove nothing too early.
func (k *keeps) cover(now, until time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return covered(k.all, lives(now, until), until)
}

func (k *keeps) set(all []keep) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = all
}

func readKeeps(tx kv.Reader) ([]keep, error) {
	b, err := tx.Get(kv.Settings, []byte(keepKey))
	if err != nil {
		return nil, err
	}
	return decodeKeeps(b)
}

func covered(all []keep, long time.Duration, until time.Time) bool {
	return slices.ContainsFunc(all, func(k keep) bool { return k.long >= long && !k.until.Before(until) })
}

// inForce returns the keeps that do not end before now.
func inForce(all []keep, now time.Time) []keep {
	return slices.DeleteFunc(all, func(k keep) bool { return !k.until.After(now) })
}

// withKeep adds a token that is accepted until the given time. A token that lives about
// as long as those of an existing keep extends it, with some margin; no token extends a
// keep that is far longer than it needs.
func withKeep(old []keep, now, until time.Time) []keep {
	long := lives(now, until)
	spare := keep{long: (long + long/64).Truncate(time.Second) + time.Minute, until: until.Add(long / 8).Truncate(time.Second).Add(time.Minute)}
	var all []keep
	added := false
	for _, k := range old {
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
func longest(all []keep, now time.Time, base time.Duration) time.Duration {
	for _, k := range all {
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
