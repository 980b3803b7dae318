package statuspage

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func TestHistory(t *testing.T) {
	var h History
	for range 3 {
		h.Message(&msl.Served{Took: 2 * time.Millisecond, Message: &msl.Message{}})
	}
	h.Message(&msl.Served{Took: 10 * time.Millisecond, Err: errors.New("away"), Fault: msl.FaultKeyStore})
	h.Message(&msl.Served{Took: 4 * time.Millisecond, Response: msl.Fail, Code: -1})
	h.Call(keystore.Call{Queue: time.Millisecond, Run: 2 * time.Millisecond})
	h.Call(keystore.Call{Err: keystore.ErrUnavailable}) // took no time that counts
	h.end(time.Unix(100, 0))
	h.end(time.Unix(110, 0))
	var o Overview
	h.Fill(&o)
	want := Point{At: 100, Answered: 3, Failed: 2, Message: Times{5, 4, 10}, Call: Times{1, 3, 3}}
	if len(o.Past) != 2 || o.Past[0] != want || o.Past[1] != (Point{At: 110}) || o.Interval != 10 {
		t.Errorf("%+v", o)
	}
}

// TestHistoryBound keeps an hour, the newest.
func TestHistoryBound(t *testing.T) {
	var h History
	for i := range 3 * mostPoints {
		h.end(time.Unix(int64(i), 0))
	}
	var o Overview
	h.Fill(&o)
	if len(o.Past) != mostPoints || o.Past[0].At != 2*mostPoints || o.Past[mostPoints-1].At != 3*mostPoints-1 || cap(h.points) > 2*mostPoints {
		t.Errorf("%d points of %d, %d to %d", len(o.Past), cap(h.points), o.Past[0].At, o.Past[len(o.Past)-1].At)
	}
}

// TestTextsOfStrangers has names that are not read as they are written: what is between them
// must not be turned around with them.
func TestTextsOfStrangers(t *testing.T) {
	var h History
	h.Message(&msl.Served{Identity: "\u202eadmin", Err: errors.New("no \u2066\u0085\x1b[2J")})
	var o Overview
	h.Fill(&o)
	if f := o.Failures[0]; f.Entity != `\u202eadmin` || f.Because != `no \u2066\u0085\u001b[2J` {
		t.Errorf("%q because %q", f.Entity, f.Because)
	}
}

// TestFlood has strangers fail, who hide no failure of the device, and choose long texts.
func TestFlood(t *testing.T) {
	var h History
	h.Message(&msl.Served{Err: errors.New("the device is away"), Fault: msl.FaultKeyStore, Code: -1, Identity: "camera", Authenticated: true})
	for range 1000 {
		h.Message(&msl.Served{Err: errors.New(strings.Repeat("x", 5000)), Fault: msl.FaultPeer, Response: msl.Fail, Code: msl.ErrMessageReplayed, Identity: strings.Repeat("ö", 5000)})
	}
	h.Message(&msl.Served{Err: errors.New("of no known fault"), Fault: msl.Faults + 3})
	var o Overview
	h.Fill(&o)
	if len(o.Failures) != mostFailures+2 {
		t.Fatalf("%d failures", len(o.Failures))
	}
	for _, f := range o.Failures {
		if len(f.Entity) > longestText+3 || len(f.Because) > longestText+3 {
			t.Errorf("a text of %d bytes", max(len(f.Entity), len(f.Because)))
		}
	}
	if last := o.Failures[len(o.Failures)-1]; last.Because != "the device is away" || !last.Proven || last.Entity != "camera" || last.Fault != "keystore" {
		t.Errorf("%+v", last)
	}
	if first := o.Failures[1]; first.Code != msl.ErrMessageReplayed.Name() || first.Proven {
		t.Errorf("%+v", first)
	}
}

// TestHistoryAtOnce counts from several goroutines, while somebody looks.
func TestHistoryAtOnce(t *testing.T) {
	var h History
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { h.Run(ctx) })
	var counting sync.WaitGroup
	for range 4 {
		counting.Go(func() {
			for range 100 {
				h.Message(&msl.Served{Err: errors.New("x")})
				h.Call(keystore.Call{Run: 1})
				h.Fill(new(Overview))
			}
		})
	}
	counting.Wait()
	h.end(time.Now())
	cancel()
	all.Wait()
	var o Overview
	h.Fill(&o)
	sum := int64(0)
	for _, p := range o.Past {
		sum += p.Failed
	}
	if sum != 400 {
		t.Errorf("%d of 400 are counted", sum)
	}
}

func BenchmarkMessage(b *testing.B) {
	var h History
	v := msl.Served{Took: 1}
	for b.Loop() {
		h.Message(&v)
	}
}
