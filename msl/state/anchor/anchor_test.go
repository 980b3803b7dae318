package anchor

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

var errPower = errors.New("the power is gone")

// A disk keeps one record, and fails on demand.
type disk struct {
	record msl.ClientRecord
	full   bool
}

func (d *disk) Load(context.Context) (msl.ClientRecord, error) { return d.record, nil }
func (d *disk) Save(_ context.Context, r msl.ClientRecord) error {
	if d.full {
		return errPower
	}
	d.record = r
	return nil
}

func (d *disk) NextID(context.Context, int64) (int64, error) {
	return 0, errors.New("the ids come from the counter")
}

// A chip counts, and fails before or after incrementing.
type chip struct {
	value         uint64
	before, after bool
	meanwhile     func()
}

func (c *chip) Value() (uint64, error) { return c.value, nil }
func (c *chip) Increment() (uint64, error) {
	if c.before {
		return 0, errPower
	}
	c.value++
	if c.meanwhile != nil {
		c.meanwhile()
	}
	if c.after {
		return 0, errPower
	}
	return c.value, nil
}

// token is the record of a session.
func token(serial int64) msl.ClientRecord {
	data := fmt.Sprintf(`{"renewalwindow":1,"expiration":2,"sequencenumber":1,"serialnumber":%d,"sessiondata":"AA=="}`, serial)
	return msl.ClientRecord{
		MasterToken: fmt.Appendf(nil, `{"tokendata":"%s","signature":"AA=="}`, base64.StdEncoding.EncodeToString([]byte(data))),
		KeyExchange: "X", Keep: []byte{1},
	}
}

// A device is a client that starts again and again.
type device struct {
	*testing.T
	disk    disk
	chip    chip
	client  *Client
	notices []error
}

func newDevice(t *testing.T) *device {
	d := &device{T: t, chip: chip{value: 7}}
	d.start()
	return d
}

// start begins a process, and returns the session that it continues.
func (d *device) start() msl.ClientRecord {
	d.Helper()
	d.client = &Client{State: &d.disk, Counter: &d.chip, Name: "chip", Notice: func(err error) { d.notices = append(d.notices, err) }}
	r, err := d.client.Load(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	return r
}

func (d *device) save(r msl.ClientRecord) {
	d.Helper()
	if err := d.client.Save(d.Context(), r); err != nil {
		d.Fatal(err)
	}
}

func (d *device) id(serial int64) int64 {
	d.Helper()
	id, err := d.client.NextID(d.Context(), serial)
	if err != nil {
		d.Fatal(err)
	}
	return id
}

func TestIDs(t *testing.T) {
	d := newDevice(t)
	d.save(token(5))
	for want := int64(1); want <= 3*Batch; want++ {
		if id := d.id(5); id != want {
			t.Fatalf("id %d, want %d", id, want)
		}
	}
	if d.chip.value != 10 {
		t.Errorf("%d increments for three batches", d.chip.value-7)
	}
	if to := BoundTo(d.disk.record); to != "chip" || BoundTo(token(1)) != "" {
		t.Errorf("bound to %q", to)
	}
	d.save(token(6))
	if id := d.id(6); id != 1 {
		t.Errorf("a new session begins with %d", id)
	}
	if r := d.start(); r.MasterToken == nil || r.Anchor != nil {
		t.Errorf("after a restart: %+v", r)
	}
	if d.chip.value != 11 {
		t.Error("a start without a message cost an increment")
	}
	if id := d.id(6); id <= 1 || id > Batch+1 {
		t.Errorf("after a restart it is %d", id)
	}
	if len(d.notices) > 0 {
		t.Errorf("notices: %v", d.notices)
	}
}

// TestRestored replaces the state with an old copy.
func TestRestored(t *testing.T) {
	d := newDevice(t)
	d.save(token(5))
	before := d.disk.record
	first := d.id(5)
	during := d.disk.record
	second := d.id(5)

	d.disk.record = before
	if r := d.start(); r.MasterToken != nil {
		t.Error("the session of an old copy goes on")
	}
	if len(d.notices) != 1 || !errors.Is(d.notices[0], ErrRolledBack) || !strings.Contains(d.notices[0].Error(), "when the counter chip was 7; it is now 8") {
		t.Errorf("notices: %v", d.notices)
	}

	d = newDevice(t)
	d.save(token(5))
	d.id(5)
	d.id(5)
	d.disk.record = during // of another device with the same history
	if r := d.start(); r.MasterToken == nil || len(d.notices) > 0 {
		t.Errorf("a copy since the last increment: notices %v", d.notices)
	}
	if id := d.id(5); id <= second {
		t.Errorf("after %d and %d comes %d", first, second, id)
	}
}

// TestUncleanStop cuts the power at each step of an increment: no session is abandoned,
// and no id is repeated.
func TestUncleanStop(t *testing.T) {
	for name, cut := range map[string]func(*device, bool){
		"before the write":     func(d *device, on bool) { d.disk.full = on },
		"before the increment": func(d *device, on bool) { d.chip.before = on },
		"after the increment":  func(d *device, on bool) { d.chip.after = on },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.save(token(5))
			last := d.id(5)
			for range 3 {
				if r := d.start(); r.MasterToken == nil {
					t.Fatalf("the session ended: %v", d.notices)
				}
				cut(d, true)
				if _, err := d.client.NextID(t.Context(), 5); !errors.Is(err, errPower) {
					t.Fatal(err)
				}
				cut(d, false)
				d.start()
				id := d.id(5)
				if id <= last {
					t.Errorf("%d after %d", id, last)
				}
				last = id
			}
			cut(d, true)
			d.client.last = d.client.limit
			if _, err := d.client.NextID(t.Context(), 5); !errors.Is(err, errPower) {
				t.Fatal(err)
			}
			cut(d, false)
			d.save(token(5)) // the process continues
			d.start()
			if id := d.id(5); id <= last || len(d.notices) > 0 {
				t.Errorf("%d after %d, notices %v", id, last, d.notices)
			}
		})
	}
}

// TestNotices abandons whatever does not match the counter.
func TestNotices(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*device)
		want   string
	}{
		"never bound":        {func(d *device) { d.disk.record.Anchor = nil }, "not bound"},
		"damaged":            {func(d *device) { d.disk.record.Anchor = []byte("{") }, "damaged"},
		"another counter":    {func(d *device) { d.client.Name = "old"; d.save(token(5)) }, "bound to the counter old"},
		"another session":    {func(d *device) { d.disk.record.MasterToken = token(6).MasterToken }, "another session"},
		"of the future":      {func(d *device) { d.chip.value -= 2 }, "old copy"},
		"a shared counter":   {func(d *device) { d.chip.value++ }, "another state uses the counter"},
		"no token in record": {func(d *device) { d.disk.record.MasterToken = []byte("{}") }, "tokendata"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.save(token(5))
			d.id(5)
			test.change(d)
			if r := d.start(); r.MasterToken != nil || r.Keep != nil {
				t.Error("the session goes on")
			}
			if len(d.notices) != 1 || !strings.Contains(d.notices[0].Error(), test.want) {
				t.Errorf("notices %v, want %q", d.notices, test.want)
			}
			d.save(token(9))
			d.id(9)
			if d.start(); len(d.notices) != 1 {
				t.Errorf("the new session: %v", d.notices)
			}
		})
	}
}

// TestDisturbed has another process increment the counter.
func TestDisturbed(t *testing.T) {
	d := newDevice(t)
	d.save(token(5))
	last := d.id(5)
	times := 0
	d.chip.meanwhile = func() {
		if times++; times < attempts {
			d.chip.value++
		}
	}
	d.client.last = d.client.limit
	if id := d.id(5); id <= last || times != attempts {
		t.Errorf("%d after %d, %d increments", id, last, times)
	}
	d.chip.meanwhile = func() { d.chip.value++ }
	d.client.last = d.client.limit
	if _, err := d.client.NextID(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "at the same time") {
		t.Errorf("got %v", err)
	}
	d.save(token(5)) // the process continues
	if d.start(); len(d.notices) > 0 {
		t.Errorf("notices: %v", d.notices)
	}
	if _, err := d.client.NextID(t.Context(), 5); err == nil {
		t.Error("disturbed again, an id came")
	}
	d.chip.meanwhile = nil
	if d.start(); len(d.notices) != 1 || !strings.Contains(d.notices[0].Error(), "another state uses the counter") {
		t.Errorf("notices: %v", d.notices)
	}
	d.chip.value = maxCounter + 1
	if _, err := (&Client{State: &d.disk, Counter: &d.chip}).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "out of range") {
		t.Errorf("got %v", err)
	}
}

func TestNotLoaded(t *testing.T) {
	c := &Client{State: &disk{}, Counter: &chip{}}
	if c.Save(t.Context(), token(1)) == nil {
		t.Error("saved before it was loaded")
	}
	if _, err := c.NextID(t.Context(), 1); err == nil {
		t.Error("counted before it was loaded")
	}
}

func TestConcurrently(t *testing.T) {
	d := newDevice(t)
	d.save(token(5))
	var seen sync.Map
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range Batch {
				id, err := d.client.NextID(t.Context(), 5)
				if _, again := seen.LoadOrStore(id, true); again || err != nil {
					t.Errorf("%d came again, or %v", id, err)
				}
			}
		})
	}
	wait.Wait()
}

// TestRandom runs random sequences of messages, new sessions, restarts, power cuts,
// copies and restores. The ids of a continued session only grow; a session from before
// the last increment is never continued.
func TestRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		d := newDevice(t)
		type copied struct {
			record msl.ClientRecord
			value  uint64
		}
		var copies []copied
		var story []string
		largest := map[int64]int64{}
		serial, fresh := int64(0), int64(0)
		begin := func() {
			fresh++
			serial = fresh
			d.save(token(serial))
		}
		begin()
		for range 60 {
			step := r.IntN(8)
			story = append(story, fmt.Sprint(step))
			switch step {
			case 0, 1, 2:
				if r.IntN(3) == 0 {
					d.client.last = max(d.client.last, d.client.limit-uint64(r.IntN(3))) // many messages
				}
				id := d.id(serial)
				if id <= largest[serial] || id > maxID {
					t.Fatalf("seed %d: session %d: %d after %d: %v", seed, serial, id, largest[serial], story)
				}
				largest[serial] = id
			case 3:
				begin()
			case 4:
				d.save(token(serial)) // renewed
			case 5:
				copies = append(copies, copied{d.disk.record, d.chip.value})
			case 6:
				if len(copies) > 0 {
					c := copies[r.IntN(len(copies))]
					d.disk.record = c.record
					d.notices = nil
					kept := d.start()
					if noticed := slices.ContainsFunc(d.notices, func(err error) bool { return errors.Is(err, ErrRolledBack) }); noticed != (kept.MasterToken == nil) {
						t.Fatalf("seed %d: noticed %v: %v", seed, noticed, story)
					}
					if kept.MasterToken == nil {
						begin()
						continue
					}
					if c.value < d.chip.value-1 {
						t.Fatalf("seed %d: a copy of %d was taken at %d: %v", seed, c.value, d.chip.value, story)
					}
					old, err := msl.ParseMasterToken(kept.MasterToken)
					if err != nil {
						t.Fatal(err)
					}
					serial = old.SerialNumber
				}
			case 7:
				d.chip.before, d.chip.after, d.disk.full = r.IntN(3) == 0, r.IntN(3) == 0, r.IntN(3) == 0
				if id, err := d.client.NextID(t.Context(), serial); err == nil {
					if id <= largest[serial] {
						t.Fatalf("seed %d: %d after %d: %v", seed, id, largest[serial], story)
					}
					largest[serial] = id
				}
				d.chip.before, d.chip.after, d.disk.full = false, false, false
				d.notices = nil
				if d.start(); len(d.notices) > 0 {
					t.Fatalf("seed %d: after a power cut: %v: %v", seed, d.notices, story)
				}
			}
		}
	}
}
