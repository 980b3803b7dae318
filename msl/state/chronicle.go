package state

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A clock may be wrong for a while, such as after a start without a battery, and a record
// that looks old by it may protect a token that is accepted again when the clock is right.
// So records age only while a server lives: what a clock advanced without any server living
// that long is a lapse, in which they do not.

// A chronicle says how the clocks of servers advanced.
type chronicle struct {
	looked time.Time // when a server last looked for old records; zero means never
	lapses []lapse   // oldest first
}

// A lapse is time that passed on a clock while no server ran.
type lapse struct {
	end  time.Time
	long time.Duration
}

const (
	chronicleKey = "looked" // in the settings
	// maxLapses bounds the record; the oldest ones are joined.
	maxLapses = 64
	// leastLapse allows for clocks that are corrected slowly.
	leastLapse = time.Minute
	// mostApart is how far the clocks of servers may be apart.
	mostApart = 5 * time.Minute
)

// at returns the chronicle as of now, for a server that has lived so long since it last
// looked. Another one may have looked meanwhile, so a clock that is ahead by less than that
// shows nothing. Lapses that end later are those of a clock that was ahead.
func (c chronicle) at(now time.Time, lived time.Duration) chronicle {
	all := slices.DeleteFunc(slices.Clone(c.lapses), func(l lapse) bool { return l.end.After(now) })
	if long := now.Sub(c.looked); !c.looked.IsZero() && long > lived+leastLapse {
		all = append(all, lapse{now, long})
	}
	if len(all) > maxLapses {
		all[1].long += all[0].long
		all = all[1:]
	}
	return chronicle{now, all}
}

// aged returns when records were touched that have now aged for so long.
func (c chronicle) aged(now time.Time, long time.Duration) time.Time {
	then := now.Add(-long)
	for _, l := range slices.Backward(c.lapses) {
		if l.end.After(then) {
			then = then.Add(-l.long)
		}
	}
	return then
}

// earliest returns what the time may be, if the clock was set forward by all that lapsed.
func (c chronicle) earliest(now time.Time) time.Time {
	if !c.looked.IsZero() && c.looked.Before(now) {
		now = c.looked
	}
	for _, l := range c.lapses {
		now = now.Add(-l.long)
	}
	return now
}

// since returns the chronicle without the lapses that matter only to older records.
func (c chronicle) since(then time.Time) chronicle {
	c.lapses = slices.DeleteFunc(slices.Clone(c.lapses), func(l lapse) bool { return !l.end.After(then) })
	return c
}

// missed returns the lapse with which a chronicle ends, or how far the clock went back since
// the last one.
func (c chronicle) missed(last chronicle) time.Duration {
	if i := len(c.lapses) - 1; i >= 0 && c.lapses[i].end.Equal(c.looked) {
		return c.lapses[i].long
	}
	if back := c.looked.Sub(last.looked); back < -mostApart {
		return back
	}
	return 0
}

// plausible returns a time at which something was changed, or an earlier one if that lies
// ahead of the clock here, and of that of the server that last looked for old records.
func plausible(tx kv.Reader, changed, now time.Time) (time.Time, error) {
	c, err := readChronicle(tx)
	latest := later(now, c.looked)
	if err != nil || changed.Sub(latest) <= mostApart {
		return changed, err
	}
	return secondAfter(latest), nil
}

func (c chronicle) encode() []byte {
	n := []int64{seconds(c.looked)}
	for _, l := range c.lapses {
		n = append(n, seconds(l.end), int64(l.long/time.Second))
	}
	return encodeInts(n...)
}

func readChronicle(tx kv.Reader) (c chronicle, err error) {
	b, err := tx.Get(kv.Settings, []byte(chronicleKey))
	if err != nil || b == nil {
		return c, err
	}
	n, err := decodeInts(b, len(b)/16*2+1)
	if err != nil {
		return c, err
	}
	c.looked = time.Unix(n[0], 0)
	for n = n[1:]; len(n) > 0; n = n[2:] {
		if n[1] > int64(1<<62/time.Second) {
			return c, fmt.Errorf("%w: a time is too long", ErrDamaged)
		}
		c.lapses = append(c.lapses, lapse{time.Unix(n[0], 0), time.Duration(n[1]) * time.Second})
	}
	return c, nil
}

// An aging is a server's part in the chronicle of its state.
type aging struct {
	records
	looked atomic.Pointer[time.Time] // when this server last looked, or was opened
}

func newAging(r records) *aging {
	now := time.Now()
	a := &aging{records: r}
	a.looked.Store(&now)
	return a
}

// A Clock is what the servers of a state know about time. The clock of one command may be wrong.
type Clock struct {
	// Now is the time here, or when a server last looked for old records, if that is later.
	Now time.Time `json:"now"`
	// Ended is a time: a token that was issued before it is no longer accepted.
	Ended time.Time `json:"ended"`
}

// Clock returns what the servers know about time. keep is as in [Pruning]. Time in which no
// server lived, or by which a clock was set, ends no token.
func (s *Server) Clock(ctx context.Context, keep time.Duration) (c Clock, err error) {
	now := time.Now()
	err = s.view(ctx, "find out how old records are", func(tx kv.Reader) error {
		last, err := readChronicle(tx)
		if err == nil {
			c.Now = later(now, last.looked)
			_, c.Ended, err = s.aging.chronicle(tx, now, keep)
		}
		return err
	})
	return c, err
}

// begin notes the time if no server did so yet: a clock that is ahead later shows by it.
func (a *aging) begin(ctx context.Context) error {
	return a.noteDown(ctx, "note when the first server ran", func(tx kv.Tx) error {
		c, err := readChronicle(tx)
		if err != nil || !c.looked.IsZero() {
			return err
		}
		return tx.Put(kv.Settings, []byte(chronicleKey), chronicle{looked: time.Now()}.encode())
	})
}

// look records that this server looks for old records now. It returns the lapse that ends
// now, or how far the clock went back, as a negative duration.
func (a *aging) look(ctx context.Context, base time.Duration) (missed time.Duration, err error) {
	now := time.Now()
	err = a.noteDown(ctx, "note that old records are looked for", func(tx kv.Tx) error {
		last, err := readChronicle(tx)
		if err != nil {
			return err
		}
		c, then, err := a.chronicle(tx, now, base)
		if err != nil {
			return err
		}
		missed = c.missed(last)
		return tx.Put(kv.Settings, []byte(chronicleKey), c.since(then).encode())
	})
	if err == nil {
		a.looked.Store(&now)
	}
	return missed, err
}

// chronicle returns the chronicle as of now, and when records were touched that have aged
// for as long as tokens are accepted.
func (a *aging) chronicle(tx kv.Reader, now time.Time, base time.Duration) (c chronicle, then time.Time, err error) {
	if c, err = readChronicle(tx); err != nil {
		return c, then, err
	}
	kept, err := readKeeps(tx)
	c = c.at(now, time.Since(*a.looked.Load()))
	return c, c.aged(now, longest(kept, c.earliest(now), base)), err
}
