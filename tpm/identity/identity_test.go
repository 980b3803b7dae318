package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// An office is an authority with its CA and its records.
type office struct {
	*enroll.Authority
	t    testing.TB
	c    enroll.Config
	path string
	file *enroll.File
}

func newOffice(t testing.TB, policy enroll.Policy) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.NewCA(key, "Fleet CA", time.Now(), 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, path: filepath.Join(t.TempDir(), "enrollments.db")}
	o.c = enroll.Config{Policy: policy, Certificate: ca, Key: key, PerSecond: 1e6}
	o.open()
	t.Cleanup(func() { o.file.Close() })
	return o
}

// open starts the authority on its file.
func (o *office) open() {
	o.t.Helper()
	var err error
	if o.file, err = enroll.OpenFile(o.path); err != nil {
		o.t.Fatal(err)
	}
	o.c.Records = o.file
	if o.Authority, err = enroll.NewAuthority(o.c); err != nil {
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

// saved are the keys in the file of a device.
func saved(t testing.TB, d *Device) keyring {
	t.Helper()
	k, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (o *office) exchange(ctx context.Context, request []byte) ([]byte, error) {
	response, _ := o.Handle(ctx, request)
	return response, nil
}

func (o *office) record(id enroll.ID) enroll.Record {
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
		if err := (enroll.Verifier{Roots: roots, CA: o.c.Certificate}).Verify(&r); err != nil {
			o.t.Error(err)
		}
	}
}

// checkRevoked wants the certificates of a device to be revoked or not, in the
// order in which they were issued.
func (o *office) checkRevoked(id enroll.ID, want ...bool) {
	o.t.Helper()
	var got []bool
	for _, c := range o.record(id).Certificates {
		got = append(got, c.Revoked != nil)
	}
	if len(got) != len(want) {
		o.t.Fatalf("revoked %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			o.t.Errorf("revoked %v, want %v", got, want)
		}
	}
}

// accepting lets every TPM in, so that only proofs keep one out.
func accepting() enroll.Policy { return enroll.Policy{Monitor: true} }

func defaultName(id enroll.ID) string { return "tpm-" + id.String()[:32] }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func connect(t testing.TB, p *tpmtest.TPM) *tpm.Device {
	t.Helper()
	d, err := tpm.NewDevice(p.Dial, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// storeOn opens the key store that goes with an identity, and makes it where
// there is none, or where the TPM has lost it.
func storeOn(t testing.TB, chip *tpm.Device, path string) *tpm.Store {
	t.Helper()
	c := tpm.StoreConfig{State: path + ".keys"}
	s, err := chip.OpenStore(c)
	if errors.Is(err, keystore.ErrForeign) {
		if err := os.Remove(c.State); err != nil {
			t.Fatal(err)
		}
	}
	if _, missing := os.Stat(c.State); errors.Is(missing, fs.ErrNotExist) {
		s, err = chip.InitStore(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openDevice(t testing.TB, chip *tpm.Device, path string) *Device {
	t.Helper()
	d, err := Open(storeOn(t, chip, path), path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ready makes a device whose keys are made.
func ready(t testing.TB, chip *tpm.Device, path string) *Device {
	t.Helper()
	d := openDevice(t, chip, path)
	if err := d.Init(context.Background(), InitOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	return d
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "identity") }

func idOf(t testing.TB, d *Device) enroll.ID {
	t.Helper()
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	id, err := enroll.ParseID(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func pool(certificates ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

// bundleOf trusts the maker of a software TPM.
func bundleOf(t testing.TB, makers []*x509.Certificate) enroll.Bundle {
	t.Helper()
	var text []byte
	for _, c := range makers {
		text = append(text, enroll.PEM("CERTIFICATE", c.Raw)...)
	}
	b, err := enroll.ParseBundle(text)
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

// checkIdentity uses the identity as a peer would.
func checkIdentity(t testing.TB, d *Device, ca *x509.Certificate, name string) {
	t.Helper()
	got, list, err := d.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if got != name {
		t.Errorf("name %q, want %q", got, name)
	}
	for _, c := range list {
		options := x509.VerifyOptions{Roots: pool(ca), CurrentTime: d.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := c.Certificate.Verify(options); err != nil {
			t.Error(err)
		}
		digest := sha256.Sum256([]byte("message"))
		signature, err := c.Signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Certificate.CheckSignature(signatureAlgorithm(c.Signer.Public()), []byte("message"), signature); err != nil {
			t.Errorf("%v: %v", c.Algorithm, err)
		}
		if c.Certificate.Subject.CommonName != name {
			t.Errorf("certificate of %q, want %q", c.Certificate.Subject.CommonName, name)
		}
	}
}
