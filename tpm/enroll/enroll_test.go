package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// An office is an authority with its CA and its records.
type office struct {
	*Authority
	t          testing.TB
	c          Config
	path       string
	file       *File
	now        time.Time
	mu         sync.Mutex
	registered map[string]Identity
	withdrawn  []Identity
	refuse     error // of Register
}

func newOffice(t testing.TB, policy Policy, change func(*Config)) *office {
	t.Helper()
	o := &office{t: t, path: filepath.Join(t.TempDir(), "enrollments.db"), now: time.Now(), registered: map[string]Identity{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := NewCA(key, "Fleet CA", o.now, 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.c = Config{Policy: policy, Certificate: ca, Key: key, Time: func() time.Time { return o.now }, PerSecond: 1e6,
		Register: func(_ context.Context, id Identity) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.refuse == nil {
				o.registered[id.Name] = id
			}
			return o.refuse
		},
		Withdraw: func(_ context.Context, id Identity) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.withdrawn = append(o.withdrawn, id)
			return o.refuse
		},
	}
	if change != nil {
		change(&o.c)
	}
	o.open()
	t.Cleanup(func() { o.file.Close() })
	return o
}

// open starts the authority on its file.
func (o *office) open() {
	o.t.Helper()
	var err error
	if o.file, err = OpenFile(o.path); err != nil {
		o.t.Fatal(err)
	}
	o.c.Records = o.file
	if o.Authority, err = NewAuthority(o.c); err != nil {
		o.t.Fatal(err)
	}
}

// restart ends it and starts it again. Earlier challenges are not valid.
func (o *office) restart() {
	o.t.Helper()
	if err := o.file.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *office) record(id ID) Record {
	o.t.Helper()
	r, err := o.Get(context.Background(), id)
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

// verify checks the evidence of all records.
func (o *office) verify(roots *x509.CertPool) {
	o.t.Helper()
	list, err := o.List(context.Background())
	if err != nil {
		o.t.Fatal(err)
	}
	for _, r := range list {
		if err := (Verifier{Roots: roots, CA: o.c.Certificate}).Verify(&r); err != nil {
			o.t.Error(err)
		}
	}
}

func pool(certificates ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

// bundleOf trusts the maker of a software TPM.
func bundleOf(t testing.TB, makers []*x509.Certificate) Bundle {
	t.Helper()
	var text []byte
	for _, c := range makers {
		text = append(text, PEM("CERTIFICATE", c.Raw)...)
	}
	b, err := ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || (got == nil) != (want == nil) {
		t.Errorf("%v, want %v", got, want)
	}
}
