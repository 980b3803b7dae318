package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// An errand is what the process with the devices is to do.
type errand struct {
	URL                 string
	Server              []byte // public key
	MakerKey, MakerCert []byte
	Devices, Together   int
}

// errandVariable has the errand, as JSON.
const errandVariable = "MSL_FLEET_ERRAND"

// many is how many devices enroll: few in everyday tests.
func many() int {
	if os.Getenv("MSL_SOAK") != "" {
		return 20_000
	}
	return 30
}

// TestManyDevices enrolls a fleet at one server, whose memory stays flat. The devices are in
// another process, so that the time and memory are the server's.
func TestManyDevices(t *testing.T) {
	if text := os.Getenv(errandVariable); text != "" {
		runErrand(t, text)
		return
	}
	s, n := newFleetSite(t), many()
	idle, cpu, start := resident(t), usedCPU(t), time.Now()
	stop := watchResident(t)
	defer stop()
	s.send(t, errand{Devices: n, Together: 16})
	took, used, most := time.Since(start), usedCPU(t)-cpu, stop()
	t.Logf("%d devices in %v: %.1f a second, %v of CPU each, memory %d KiB idle and %d KiB at most",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), (used / time.Duration(n)).Round(time.Microsecond), idle>>10, most>>10)
	var heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap)
	t.Logf("%d KiB of the heap are in use afterwards", heap.HeapAlloc>>10)
	if most > idle+64<<20 {
		t.Errorf("%d MiB more than idle", (most-idle)>>20)
	}
	enrolled, err := s.Count(t.Context(), enroll.Enrolled)
	if err != nil || enrolled != n {
		t.Errorf("%d of %d are enrolled: %v", enrolled, n, err)
	}
	s.measureLists(t, n)
}

// measureLists times the lists of a fleet, and measures its files.
func (s *fleetSite) measureLists(t *testing.T, n int) {
	t.Helper()
	for what, q := range map[string]enroll.Query{
		"the first page": {}, "a state": {State: enroll.Enrolled}, "the last hour": {Since: time.Now().Add(-time.Hour)}, "a name": {Name: "tpm-"},
	} {
		start := time.Now()
		p, err := s.Page(t.Context(), q)
		if took := time.Since(start); err != nil || len(p.Records) == 0 {
			t.Errorf("%s: %d records, %v", what, len(p.Records), err)
		} else {
			t.Logf("%s: %d records in %v", what, len(p.Records), took.Round(time.Microsecond))
		}
	}
	var records bytes.Buffer
	if err := s.records.Snapshot(&records); err != nil {
		t.Fatal(err)
	}
	t.Logf("the file of enrollments has %d bytes, %d for each", records.Len(), records.Len()/n)
	start := time.Now()
	s.restart()
	t.Logf("an authority starts in %v", time.Since(start).Round(time.Millisecond))
}

// BenchmarkEnroll is an enrollment from its first message to its certificate, with the
// device in the same process.
func BenchmarkEnroll(b *testing.B) {
	s := newFleetSite(b)
	e, err := newErrands(s.errand(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := e.one(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A fleetSite is a desk whose endpoint has no limits, and trusts a maker.
type fleetSite struct {
	*desk
	url   string
	own   *entityauth.ECCEntity
	maker maker
}

func newFleetSite(t testing.TB) *fleetSite {
	t.Helper()
	m, err := newMaker()
	if err != nil {
		t.Fatal(err)
	}
	s := &fleetSite{desk: newDesk(t), maker: m}
	if s.settings.Policy.Bundle, err = enroll.ParseBundle(enroll.PEM("CERTIFICATE", m.cert.Raw)); err != nil {
		t.Fatal(err)
	}
	s.settings.Policy.Monitor, s.settings.PerSecond = false, 1e6
	s.restart()
	identity, err := simulate()
	if err != nil {
		t.Fatal(err)
	}
	s.own = &entityauth.ECCEntity{Identity: "server", KeyID: "1", Key: identity.key}
	endpoint, err := NewEndpoint(s.Authority, EndpointConfig{
		Name: "server", Local: s.own, PerSecond: 1e6,
		Limits: msl.Limits{ErrorsPerSecond: 1e6, ErrorsPerSource: 1e6}, // all devices have one address
	})
	if err != nil {
		t.Fatal(err)
	}
	s.url = serve(t, httptest.NewServer(endpoint), endpoint)
	return s
}

func (s *fleetSite) errand(t testing.TB) errand {
	t.Helper()
	server, err := x509.MarshalPKIXPublicKey(s.own.Key.Public())
	key, errKey := x509.MarshalECPrivateKey(s.maker.key)
	if err := errors.Join(err, errKey); err != nil {
		t.Fatal(err)
	}
	return errand{URL: s.url, Server: server, MakerKey: key, MakerCert: s.maker.cert.Raw}
}

// send runs an errand in a process of its own.
func (s *fleetSite) send(t *testing.T, e errand) {
	t.Helper()
	all := s.errand(t)
	all.Devices, all.Together = e.Devices, e.Together
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyDevices$", "-test.timeout=0")
	c.Env = append(os.Environ(), errandVariable+"="+string(text))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func runErrand(t *testing.T, text string) {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	all, err := newErrands(e)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{}, e.Devices)
	for range e.Devices {
		left <- struct{}{}
	}
	close(left)
	var workers sync.WaitGroup
	for range e.Together {
		workers.Go(func() {
			for range left {
				if err := all.one(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// errands are devices that enroll at a server.
type errands struct {
	url   string
	peers []msl.EntityScheme
	pair  keyx.UnwrappingPair // of all: it takes long to make
	store *soft.Store
	maker maker
}

func newErrands(e errand) (all errands, err error) {
	key, err := x509.ParsePKIXPublicKey(e.Server)
	if err != nil {
		return all, err
	}
	all.url = e.URL
	all.peers = []msl.EntityScheme{&entityauth.ECC{Directory: known{
		"server": {Identity: "server", Scheme: "ECC", KeyID: "1", PublicKey: key.(*ecdsa.PublicKey)},
	}}}
	all.store = soft.New()
	v, err := all.store.Create("pair", keystore.RSAUnwrap2048)
	if err != nil {
		return all, err
	}
	all.pair = v.Key.(keyx.UnwrappingPair)
	if all.maker.key, err = x509.ParseECPrivateKey(e.MakerKey); err != nil {
		return all, err
	}
	all.maker.cert, err = x509.ParseCertificate(e.MakerCert)
	return all, err
}

// one enrolls a new device.
func (all *errands) one(ctx context.Context) error {
	s, err := simulate()
	if err != nil {
		return err
	}
	certificate, err := all.maker.certify(&s)
	if err != nil {
		return err
	}
	client := NewClient(all.peers, &mslhttp.Transport{URL: all.url})
	client.KeyExchanges = []msl.Offerer{&keyx.AsymmetricWrapped{Store: all.store, KeyPair: all.pair}}
	return errors.Join(s.enroll(ctx, Exchange(client, "server"), certificate), client.Close())
}

// usedCPU is the time of the processors that this process used.
func usedCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the memory that this process occupies, without mapped files.
func resident(t testing.TB) (bytes int64) {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err) // not Linux
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
	}
	return bytes << 10
}

// watchResident looks at the memory now and then, until stop returns the most that there
// was.
func watchResident(t *testing.T) (stop func() int64) {
	t.Helper()
	most, done, ended := int64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			most = max(most, resident(t))
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(done)
		<-ended
		return most
	})
}
