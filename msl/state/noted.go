package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// Commands change a state that several servers share on their own, with a clock that may be
// wrong: by one that is behind, tokens would count that are newer than what should have ended
// them, and by one that is ahead new tokens would not. So servers note what time it is, every
// minute and when a command asks, and older tokens end as of a time that is later than the clocks
// of all of them.

const (
	notedKey = "noted" // in the settings: the time, by the server that noted it last
	askedKey = "asked" // likewise: another value whenever a command asks
	// noteEvery is how often servers note the time, and heedEvery how often they look
	// whether a command asks, in their copy.
	noteEvery      = time.Minute
	heedEvery      = 250 * time.Millisecond
	restAfterError = 5 * time.Second
	// answerTime is how long a command waits for servers.
	answerTime = 2 * time.Second
)

// noteUntil notes the time until ctx ends, if the state is shared, and compares the clock with
// those of the others. An error is that of etcd, which others report: the next one tries again.
func (r records) noteUntil(ctx context.Context, clocks *clocks, log *slog.Logger) {
	if _, shared := r.store.(kv.Shared); !shared {
		return
	}
	var last time.Time
	var heeded []byte
	for ctx.Err() == nil {
		rest := heedEvery
		asked, noted, err := r.asked(ctx)
		if err == nil {
			clocks.compare(noted, time.Now(), log)
		}
		if err == nil && (last.IsZero() || time.Since(last) >= noteEvery || !bytes.Equal(asked, heeded)) {
			now := time.Now()
			clocks.own(now)
			if r.note(ctx, now) == nil {
				last, heeded = now, asked
			} else {
				rest = restAfterError
			}
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
}

// asked returns what changes when a command asks for the time, and the time noted last.
func (r records) asked(ctx context.Context) (value []byte, noted time.Time, err error) {
	err = r.recall(ctx, "see who asks for the time", func(tx kv.Reader) error {
		found, err := tx.Get(kv.Settings, []byte(askedKey))
		if value = bytes.Clone(found); err == nil {
			noted, err = readTime(tx, notedKey)
		}
		return err
	})
	return value, noted, err
}

func (r records) note(ctx context.Context, now time.Time) error {
	return r.noteDown(ctx, "note the time", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(notedKey), encodeInts(seconds(now)))
	})
}

// noted returns the time that a server noted last, or the zero time.
func (r records) noted(ctx context.Context) (at time.Time, err error) {
	err = r.view(ctx, "read the time of the servers", func(tx kv.Reader) error {
		at, err = readTime(tx, notedKey)
		return err
	})
	return at, err
}

// moment returns what a change takes for the present: before it were all tokens issued that any
// server has issued, unless its clock is ahead of that of another by more than mostApart.
func (r records) moment(ctx context.Context) (time.Time, error) {
	noted, err := r.noted(ctx)
	switch now := time.Now(); {
	case err != nil || noted.IsZero():
		return now, err
	case agree(now, noted):
		noted = noted.Add(noteEvery)
	default:
		noted, err = r.ask(ctx, noted)
	}
	return noted.Add(mostApart), err
}

// agree reports whether the clock here may be right, if a server noted the time within the last
// minute.
func agree(now, noted time.Time) bool {
	return noted.Sub(now) <= mostApart && now.Sub(noted) <= mostApart+noteEvery
}

// ask has the servers note the time anew. If one agrees with the clock here, it returns what that
// one noted, else what another one did. If none answers, such as those of an earlier version, the
// later time counts of those known.
func (r records) ask(ctx context.Context, before time.Time) (noted time.Time, err error) {
	question := rand.Text()
	err = r.update(ctx, "ask for the time", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(askedKey), []byte(question))
	})
	answered := false
	for end := time.Now().Add(answerTime); err == nil && time.Now().Before(end); time.Sleep(answerTime / 50) {
		noted, err = r.noted(ctx)
		answered = answered || !noted.Equal(before)
		if err == nil && agree(time.Now(), noted) {
			break
		}
	}
	if err == nil && !answered {
		noted = later(time.Now(), before)
	}
	return noted, err
}
