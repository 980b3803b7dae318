//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// The benchmarks put a server and its clients into one process, with a transport
// in memory. Clients keep their keys in memory and reuse one key pair, and state is in
// memory, so that neither key generation nor a disk hides the rest. Only the server's
// keys differ: in memory (soft) or on SoftHSM2.

// benchStores are the places for the server's keys.
var benchStores = []struct {
	name string
	open func(testing.TB) benchStore
}{
	{"soft", func(t testing.TB) benchStore {
		s := soft.New()
		t.Cleanup(func() { s.Close() })
		return s
	}},
	{"softhsm", openSoftHSM},
	{"isolated", openIsolated},
}

type benchStore interface {
	keystore.Store
	keystore.Admin
	keystore.Importer
}

// openIsolated opens a token in a child process.
func openIsolated(t testing.TB) benchStore {
	token := newBenchToken(t)
	name := os.Args[0]
	os.Args[0] = "msl-hsm" // by which this test knows that it is to be the program
	defer func() { os.Args[0] = name }()
	c := config.Default()
	c.Keystore.URI, c.Keystore.PIN, c.Keystore.Sessions, c.Keystore.Isolate = token.URI, string(token.PIN), 4, true
	s, err := keys.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newBenchToken makes a token with sealing keys.
func newBenchToken(t testing.TB) *softhsm.Token {
	token := softhsm.Temp(t)
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range keystore.SealingRoles() {
		if _, err := s.Create(r.Label("msl"), r.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
	return token
}

func openSoftHSM(t testing.TB) benchStore {
	token := newBenchToken(t)
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A bench is a server in memory.
type bench struct {
	testing.TB
	store     benchStore
	server    *msl.Server
	directory benchDirectory
	public    crypto.PublicKey
	handle    msl.Handler
	serving   atomic.Int64 // nanoseconds spent in the server
}

type benchDirectory map[string]*msl.Entity

func (d benchDirectory) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if e, ok := d[identity]; ok {
		return e, nil
	}
	return nil, keystore.ErrNotFound
}

func (b *bench) create(s keystore.Admin, label string, a keystore.Algorithm) keystore.Key {
	b.Helper()
	v, err := s.Create(label, a)
	if err != nil {
		b.Fatal(err)
	}
	return v.Key
}

// put is create for a device, which takes a pair that is there.
func (b *bench) put(s *soft.Store, label string, a keystore.Algorithm) keystore.Key {
	b.Helper()
	pair, err := samePair(a.Size())
	if err != nil {
		b.Fatal(err)
	}
	v, err := s.ProvisionKeyPair(label, a, pair)
	if err != nil {
		b.Fatal(err)
	}
	return v.Key
}

func newBench(t testing.TB, store benchStore) *bench {
	b := &bench{TB: t, store: store, directory: benchDirectory{}, handle: sendBack}
	identity := b.create(store, "identity", keystore.RSASign2048).(crypto.Signer)
	b.public = identity.Public()
	psk := &entityauth.PSK{Directory: b.directory, Store: store}
	b.server = &msl.Server{
		Name:         "server",
		Local:        &entityauth.RSAEntity{Identity: "server", KeyID: "server", Key: identity},
		Peers:        []msl.EntityScheme{psk, &entityauth.RSA{Directory: b.directory}},
		KeyExchanges: []msl.Responder{&keyx.SymmetricResponder{Store: store, PSK: psk}, &keyx.AsymmetricWrapped{Store: store}},
		Issuer: &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: b.create(store, "issuer-encryption", keystore.AES128CBC).(keystore.Cipher),
			MAC:        b.create(store, "issuer-mac", keystore.HMACSHA256).(keystore.MAC),
		}}},
		State:  &msl.MemoryState{},
		Limits: msl.Limits{ErrorsPerSecond: 1e9, ErrorsPerSource: 1e9, Sessions: 1e6},
	}
	t.Cleanup(func() { b.server.Close(); psk.Close() })
	return b
}

func sendBack(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// RoundTrip carries a message in memory.
func (b *bench) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	request, answer := buffers.Get().(*buffer), buffers.Get().(*buffer)
	defer request.Close()
	if err := write(request); err != nil {
		return nil, err
	}
	start := time.Now()
	defer func() { b.serving.Add(int64(time.Since(start))) }()
	return answer, b.server.Serve(ctx, "bench", request, answer, b.handle)
}

// A buffer takes the place of a connection's: it is used again.
type buffer struct{ bytes.Buffer }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func (b *buffer) Close() error {
	b.Reset()
	buffers.Put(b)
	return nil
}

// device registers an entity and returns how to make clients of it, each without
// a session.
func (b *bench) device(scheme string) func() *msl.Client { return b.deviceNamed("device", scheme) }

func (b *bench) deviceNamed(name, scheme string) func() *msl.Client {
	store := soft.New()
	b.Cleanup(func() { store.Close() })
	var entity msl.LocalEntity
	var exchange msl.Offerer
	if scheme == "PSK" {
		psk := b.registerPSK(name, store)
		entity, exchange = psk, &keyx.SymmetricOfferer{Keys: psk.Keys}
	} else {
		key := b.put(store, "identity", keystore.RSASign2048).(crypto.Signer)
		pair := b.put(store, "exchange", keystore.RSAUnwrap2048).(keyx.UnwrappingPair)
		b.directory[name] = &msl.Entity{Identity: name, Scheme: "RSA", KeyID: name, PublicKey: key.Public().(*rsa.PublicKey)}
		entity = &entityauth.RSAEntity{Identity: name, KeyID: name, Key: key}
		exchange = &keyx.AsymmetricWrapped{Store: store, KeyPair: pair}
	}
	server := benchDirectory{"server": {Identity: "server", Scheme: "RSA", KeyID: "server", PublicKey: b.public}}
	return func() *msl.Client {
		return &msl.Client{Local: entity, KeyExchanges: []msl.Offerer{exchange}, Transport: b,
			Peers: []msl.EntityScheme{&entityauth.RSA{Directory: server}}}
	}
}

func (b *bench) registerPSK(name string, device *soft.Store) *entityauth.PSKEntity {
	add := func(use string, here, there keystore.Algorithm) ([]byte, keystore.Key) {
		raw := make([]byte, here.Size())
		rand.Read(raw)
		k, err := b.store.Import(here, raw)
		if err != nil {
			b.Fatal(err)
		}
		defer k.Close()
		sealed, err := b.store.Seal(k, msl.PSKContext(use, name))
		if err != nil {
			b.Fatal(err)
		}
		own, err := device.Provision(use, there, raw)
		if err != nil {
			b.Fatal(err)
		}
		return sealed, own.Key
	}
	var sealed msl.SealedPSK
	var encryption, mac, wrapping keystore.Key
	sealed.Encryption, encryption = add(msl.PSKEncryption, keystore.AES128CBC, keystore.AES128CBC)
	sealed.MAC, mac = add(msl.PSKMAC, keystore.HMACSHA256, keystore.HMACSHA256)
	sealed.Wrapping, wrapping = add(msl.PSKWrapping, keystore.AESWrap128, keystore.AESUnwrap128)
	b.directory[name] = &msl.Entity{Identity: name, Scheme: "PSK", PSK: &sealed}
	return &entityauth.PSKEntity{Identity: name, Keys: entityauth.NewKeySet(encryption.(keystore.Cipher), mac.(keystore.MAC), wrapping)}
}

// echo sends 1 KiB and reads it back.
func echo(b testing.TB, c *msl.Client, tokens bool) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 64)
	r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: tokens, Body: msl.BytesBody(body)})
	if err != nil {
		b.Error(err)
		return
	}
	if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(body)) {
		b.Errorf("answer of %d bytes: %v", n, err)
	}
	r.Body.Close()
}

// BenchmarkEcho is a round trip of 1 KiB in a session that the server remembers.
func BenchmarkEcho(b *testing.B) {
	for _, place := range benchStores {
		for _, goroutines := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%s/%d", place.name, goroutines), func(b *testing.B) {
				n := newBench(b, place.open(b))
				c := n.device("PSK")()
				defer c.Close()
				echo(b, c, true)
				measure(b, n, goroutines, func() { echo(b, c, false) })
			})
		}
	}
}

// BenchmarkHandshake is a client's first message: entity authentication, key
// exchange, a new master token, and 1 KiB there and back.
func BenchmarkHandshake(b *testing.B) {
	for _, place := range benchStores {
		for _, scheme := range []string{"PSK", "RSA"} {
			b.Run(place.name+"/"+scheme, func(b *testing.B) {
				n := newBench(b, place.open(b))
				client := n.device(scheme)
				measure(b, n, 1, func() {
					c := client()
					defer c.Close()
					echo(b, c, true)
				})
			})
		}
	}
}

// measure runs f b.N times, spread over goroutines, and reports what timed does, and the
// rate that the server by itself would have.
func measure(b *testing.B, n *bench, goroutines int, f func()) {
	n.serving.Store(0)
	timed(b, n, goroutines, func(int) error { f(); return nil })
	if served := n.serving.Load(); served > 0 && goroutines == 1 { // a floor has no server
		b.ReportMetric(float64(b.N)/(float64(served)/1e9), "server/s")
	}
}

// timed shares b.N runs of f among goroutines, which it gets the number of, and reports
// the rate, the processor time of both sides, and the calls into the PKCS #11 module.
func timed(b *testing.B, n *bench, goroutines int, f func(goroutine int) error) {
	counter, counts := n.store.(interface{ Calls() map[string]uint64 })
	var before map[string]uint64
	if counts {
		before = counter.Calls()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(serverside.GCPercent)) // as serve does
	b.ReportAllocs()
	busy := processorTime(b)
	b.ResetTimer()
	share(b, goroutines, f)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64((processorTime(b)-busy).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	if counts {
		for name, n := range counter.Calls() {
			if n -= before[name]; n >= uint64(b.N)/10+1 {
				b.ReportMetric(float64(n)/float64(b.N), name+"/op")
			}
		}
	}
}

// share runs f b.N times, each goroutine when it is done with the last one.
func share(b *testing.B, goroutines int, f func(goroutine int) error) {
	var begun atomic.Int64
	var wait sync.WaitGroup
	for g := range goroutines {
		wait.Go(func() {
			for begun.Add(1) <= int64(b.N) {
				if err := f(g); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// processorTime is what the process and its children have used, which other programs on the
// machine change less than the time that passes.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	for _, pid := range children(b) {
		used += processClock(pid)
	}
	return used
}

// children are the processes that this one has started (proc(5), children).
func children(b *testing.B) (all []int) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // the thread may have ended
		for _, one := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(one); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// processClock is the processor time of another process (clock_getcpuclockid(3)), or 0.
func processClock(pid int) time.Duration {
	var at unix.Timespec
	const sched = 2 // CPUCLOCK_SCHED
	if err := unix.ClockGettime(int32(^pid<<3|sched), &at); err != nil {
		return 0
	}
	return time.Duration(at.Nano())
}
