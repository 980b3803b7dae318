//go:build cgo && !nopkcs11

package cli

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A distant store knows how it was opened.
type distant struct {
	*hsm.Store
	config hsm.Config
}

// openDistant opens a token whose module makes each call take that much longer, as a
// network does between a server and its HSM.
func openDistant(t testing.TB, sessions int, delay time.Duration) (*distant, *hsmtest.Module) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	uri := (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String()
	s, err := hsm.Open(hsm.Config{URI: uri, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range keystore.SealingRoles() {
		if _, err := s.Create(r.Label(keystore.DefaultPrefix), r.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if delay > 0 {
		m.Inject(hsmtest.Fault{Delay: delay})
	}
	config := hsm.Config{URI: uri, PIN: token.PIN, Sessions: sessions}
	if s, err = hsm.Open(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &distant{s, config}, m
}

// calls are those that a module gets while f runs, and a list of them.
func calls(m *hsmtest.Module, f func()) (total int, list string) {
	before := m.Counters().Calls
	f()
	after := m.Counters().Calls
	var all []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if n := int(after[name] - before[name]); n > 0 {
			all, total = append(all, fmt.Sprintf("%s %d", name, n)), total+n
		}
	}
	return total, strings.Join(all, ", ")
}

// noMoreThan fails if f makes more calls.
func noMoreThan(t *testing.T, m *hsmtest.Module, most int, what string, f func()) {
	t.Helper()
	total, list := calls(m, f)
	t.Logf("%s: %d calls: %s", what, total, list)
	if total > most {
		t.Errorf("%s takes %d calls, want no more than %d: %s", what, total, most, list)
	}
}

// The calls into the module that each message costs: no more than its cryptography needs,
// whether the module is near or far. docs/operations.md has the numbers.
func TestCallsOfMessages(t *testing.T) {
	skipWithRace(t)
	for _, delay := range []time.Duration{0, time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			store, m := openDistant(t, 4, delay)
			n := newBench(t, store)
			c, other := n.device("PSK")(), n.deviceNamed("other", "RSA")()
			defer c.Close()
			defer other.Close()
			opened := 0 // sessions, for what is done at the same time
			if delay > 0 {
				opened = 3
			}
			noMoreThan(t, m, 46+opened, "first message of a device", func() { echo(t, c, true) })
			noMoreThan(t, m, 16+opened, "message in a session", func() { echo(t, c, false) })
			noMoreThan(t, m, 42+opened, "first messages of a device with RSA", func() { echo(t, other, true) })
			lost := []hsmtest.Fault{{Code: pkcs11.CKR_DEVICE_ERROR, UntilFinalize: true}}
			if delay > 0 {
				lost = append(lost, hsmtest.Fault{Delay: delay})
			}
			m.Inject(lost...)
			noMoreThan(t, m, 80, "recovery, and the first message after it", func() { echo(t, c, false) })
			noMoreThan(t, m, 16+opened, "message after that", func() { echo(t, c, false) })
		})
	}
}

// A start makes as many calls as it needs to find the keys and to prove that the module
// protects them; a session that was forgotten is opened again.
func TestCallsOfStart(t *testing.T) {
	skipWithRace(t)
	store, m := openDistant(t, 4, 0)
	n := newBench(t, store)
	c := n.device("PSK")()
	defer c.Close()
	echo(t, c, true)
	n.server.Close()
	noMoreThan(t, m, 30, "message in a session that was forgotten", func() { echo(t, c, false) })
	for _, r := range keystore.ServerRoles() {
		if !r.Algorithm().Sealing() {
			n.create(store, r.Label(keystore.DefaultPrefix), r.Algorithm())
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	noMoreThan(t, m, 120, "start", func() {
		s, err := hsm.Open(store.config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		for _, r := range keystore.ServerRoles() {
			if _, err := s.Lookup(r.Label(keystore.DefaultPrefix)); err != nil {
				t.Error(err)
			}
		}
	})
}

// least is the shortest time of f, and so one without what the machine did besides.
func least(times int, f func()) time.Duration {
	shortest := time.Hour
	for range times {
		start := time.Now()
		f()
		shortest = min(shortest, time.Since(start))
	}
	return shortest
}

// A message to a device that is far away takes eight calls one after the other, and not
// sixteen: as long as four operations on one key.
func TestLatencyOfMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	store, _ := openDistant(t, 4, 20*time.Millisecond) // much more than the processors take, with the race detector, too
	n := newBench(t, store)
	key, err := store.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	operation := least(3, func() {
		if _, err := key.(keystore.MAC).Sum(nil); err != nil {
			t.Error(err)
		}
	})
	web := httptest.NewServer(&mslhttp.Handler{Server: n.server, Handle: n.handle})
	defer web.Close()
	for name, transport := range map[string]msl.Transport{"memory": n, "HTTP": &mslhttp.Transport{URL: web.URL}} {
		for _, size := range []int{64, 6 << 10} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				c := n.deviceNamed(t.Name(), "PSK")()
				defer c.Close()
				c.Transport = transport
				echo(t, c, true)
				req := &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(make([]byte, size))}
				message := time.Hour
				for try := 0; try < 60 && message > 5*operation; try++ { // others may keep the processors
					message = min(message, least(1, func() { exchange(t, c, req) }))
				}
				t.Logf("operation %v, message %v: %.2f", operation, message, float64(message)/float64(operation))
				if message > 5*operation {
					t.Errorf("a message takes %v, and one operation %v: it takes more than four one after the other", message, operation)
				}
			})
		}
	}
}

// perSecond is how often f is done, by so many goroutines.
func perSecond(goroutines int, during time.Duration, f func(i int)) float64 {
	var done atomic.Int64
	var wait sync.WaitGroup
	start := time.Now()
	for i := range goroutines {
		wait.Go(func() {
			for time.Since(start) < during {
				f(i)
				done.Add(1)
			}
		})
	}
	wait.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// BenchmarkDistantDevice is a device each of whose calls takes a millisecond: how long
// one message takes, beside four operations on one key, and what part of its sessions' time
// 64 clients get. Beside that part, which the processors may bound, too: the processor time
// of a message, client and server together.
func BenchmarkDistantDevice(b *testing.B) {
	const sessions = 32
	store, _ := openDistant(b, sessions, time.Millisecond)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(keys.AtOnce, runtime.GOMAXPROCS(0)))) // as serve does
	n := newBench(b, store)
	client := n.device("PSK")
	one := client()
	defer one.Close()
	echo(b, one, true)
	for range b.N {
		b.ReportMetric(float64(least(50, func() { echo(b, one, false) }))/float64(time.Millisecond), "ms/message")
		var all [2 * sessions]func()
		for i := range all {
			c := client()
			defer c.Close()
			echo(b, c, true)
			all[i] = func() { echo(b, c, false) }
		}
		perSecond(len(all), time.Second, func(i int) { all[i]() }) // the sessions follow the load
		busy, during := processorTime(b), 3*time.Second
		rate := perSecond(len(all), during, func(i int) { all[i]() })
		b.ReportMetric(rate, "msg/s")
		b.ReportMetric(float64((processorTime(b)-busy).Microseconds())/(rate*during.Seconds()), "cpu-us/message")
		b.ReportMetric(rate*16/sessions/1000, "of-sessions")
		key, err := store.Generate(keystore.HMACSHA256)
		if err != nil {
			b.Fatal(err)
		}
		defer key.Close()
		sum := func() { key.(keystore.MAC).Sum(nil) }
		b.ReportMetric(float64(4*least(50, sum))/float64(time.Millisecond), "floor-ms/message")
		floor := perSecond(sessions, 3*time.Second, func(int) { sum() })
		b.ReportMetric(floor*2/sessions/1000, "floor-of-sessions")
	}
}
