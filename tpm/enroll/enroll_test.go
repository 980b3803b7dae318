package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// An office is an authority with its CA and its store.
type office struct {
	*Authority
	t          testing.TB
	c          Config
	path       string
	file       *File
	now        time.Time
	registered map[string]Identity
	withdrawn  []Identity
	refuse     error // of Register
}

func newOffice(t testing.TB, policy Policy, change func(*Config)) *office {
	t.Helper()
	o := &office{t: t, path: filepath.Join(t.TempDir(), "enrolments.db"), now: time.Now(), registered: map[string]Identity{}}
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
			if o.refuse == nil {
				o.registered[id.Name] = id
			}
			return o.refuse
		},
		Withdraw: func(_ context.Context, id Identity) error {
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
	o.c.Store = o.file
	if o.Authority, err = NewAuthority(o.c); err != nil {
		o.t.Fatal(err)
	}
}

// restart ends it and starts it again. Challenges of before are not valid.
func (o *office) restart() {
	o.t.Helper()
	if err := o.file.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *office) exchange(ctx context.Context, request []byte) ([]byte, error) {
	response, _ := o.Handle(ctx, request)
	return response, nil
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

func connect(t testing.TB, p *tpmtest.TPM) *tpm.Device {
	t.Helper()
	d, err := tpm.NewDevice(p.Dial, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func openDevice(t testing.TB, tpm TPM, path string) *Device {
	t.Helper()
	d, err := OpenDevice(tpm, path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func idOf(t testing.TB, d *Device) ID {
	t.Helper()
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseID(s.ID)
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

func TestEnrollByCertificate(t *testing.T) {
	for name, kind := range map[string]EKKind{"default": "", "p384": EKP384} {
		t.Run(name, func(t *testing.T) {
			chip, makers := tpmtest.StartCertified(t)
			o := newOffice(t, Policy{Bundle: bundleOf(t, makers), RefuseUnknown: true}, nil)
			d := openDevice(t, connect(t, chip), filepath.Join(t.TempDir(), "identity"))
			d.PCRs = []uint{0, 7, 16}
			ctx := context.Background()
			options := InitOptions{EK: kind, Algorithms: []keystore.Algorithm{keystore.ECDSAP256, keystore.RSASign2048}}
			if err := d.Init(ctx, options, nil); err != nil {
				t.Fatal(err)
			}
			if err := d.Enroll(ctx, o.exchange, func(s string) { t.Log(s) }); err != nil {
				t.Fatal(err)
			}
			id := idOf(t, d)
			checkIdentity(t, d, o.c.Certificate, defaultName(id))
			r := o.record(id)
			if r.State != Enrolled || r.Accepted != "EK certificate" || r.Manufacturer == "" || len(r.Evidence.Chain) != 3 {
				t.Errorf("record %+v", r)
			}
			if len(o.registered[r.Name].Keys) != 2 {
				t.Errorf("registered %+v", o.registered)
			}
			o.verify(pool(makers[0]))
			t.Logf("evidence of %d bytes", len(r.Evidence.Proof))
		})
	}
}

// TestChainInTPM has the certificate between the EK's and the root in the TPM
// alone, with something behind it.
func TestChainInTPM(t *testing.T) {
	ctx := context.Background()
	p, makers := tpmtest.StartCertified(t)
	o := newOffice(t, Policy{Bundle: bundleOf(t, makers[:1]), RefuseUnknown: true}, nil)
	chip := connect(t, p)
	d := ready(t, chip, newPath(t))
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrEKCertificate)
	if s, err := d.Status(); err != nil || s.LastAnswer != "ek-certificate" {
		t.Errorf("%+v, %v", s, err)
	}
	define(t, chip, 0x01c00100, append(bytes.Clone(makers[1].Raw), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	o.verify(pool(makers[0]))
}

// define makes an NV index that anyone may read.
func define(t *testing.T, chip TPM, index tpm2.TPMHandle, data []byte) {
	t.Helper()
	area := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)), Attributes: tpm2.TPMANV{
		OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true,
	}}
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	err := chip.Do(func(tt transport.TPM) error {
		if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(area)}).Execute(tt); err != nil {
			return err
		}
		for at := 0; at < len(data); at += 512 {
			r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tt)
			if err != nil {
				return err
			}
			_, err = tpm2.NVWrite{
				AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: index, Name: r.NVName}, Offset: uint16(at),
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+512, len(data))]},
			}.Execute(tt)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
