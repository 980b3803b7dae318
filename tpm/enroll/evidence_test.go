package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

func TestEKCertificates(t *testing.T) {
	m, stranger := newMaker(t, "Maker"), newMaker(t, "Stranger")
	f, other := newForger(t), newForger(t)
	ek := f.ek.Public()
	with := func(change func(*x509.Certificate)) []byte { return m.certify(ek, change) }
	tests := []struct {
		name  string
		chain [][]byte
		want  error
	}{
		{"critical name", [][]byte{with(nil)}, nil},
		{"no name", [][]byte{with(func(c *x509.Certificate) { c.ExtraExtensions, c.Subject.CommonName = nil, "TPM" })}, nil},
		{"no certificate", nil, ErrPolicy},
		{"expired", [][]byte{with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}, ErrPending},
		{"not yet valid", [][]byte{with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })}, ErrEKCertificate},
		{"another maker", [][]byte{stranger.certify(ek, nil)}, ErrEKCertificate},
		{"another maker, who comes along", [][]byte{stranger.certify(ek, nil), stranger.cert.Raw}, ErrEKCertificate},
		{"another EK", [][]byte{m.certify(other.ek.Public(), nil)}, ErrEKCertificate},
		{"of an authority", [][]byte{with(func(c *x509.Certificate) { c.IsCA = true })}, ErrEKCertificate},
		{"for servers", [][]byte{with(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}, ErrEKCertificate},
		{"name without a TPM", [][]byte{with(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0x30, 2, 0x88, 0} })}, ErrEKCertificate},
		{"name that is none", [][]byte{with(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0x30, 4, 0xa4, 2, 0x31, 9} })}, ErrEKCertificate},
		{"another critical extension", [][]byte{with(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		})}, ErrEKCertificate},
		{"garbage", [][]byte{[]byte("garbage")}, ErrEKCertificate},
		{"says nothing of a TPM", [][]byte{with(func(c *x509.Certificate) {
			c.ExtraExtensions, c.UnknownExtKeyUsage, c.Subject.CommonName = nil, nil, "TPM"
		})}, ErrEKCertificate},
		{"no extended usage", [][]byte{with(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil })}, nil},
		{"for signatures", [][]byte{with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })}, ErrEKCertificate},
		{"garbage above", [][]byte{with(nil), []byte("garbage")}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}, nil)
			f.certificates = tt.chain
			b := f.begin()
			response, err := o.Handle(context.Background(), proof.Encode(b))
			if err == nil {
				var c proof.Challenge
				if c, err = proof.Parse[proof.Challenge](response, proof.TypeChallenge); err != nil {
					t.Fatal(err)
				}
				response, err = o.Handle(context.Background(), proof.Encode(f.prove(b, c)))
			}
			checkError(t, err, tt.want)
			_, err = proof.ParseResult(response)
			checkError(t, err, tt.want)
			want := map[error]State{nil: Enrolled, ErrPending: Pending, ErrPolicy: Refused, ErrEKCertificate: Refused}
			if r := o.record(f.id()); r.State != want[tt.want] || r.Evidence == nil {
				t.Errorf("its record is %s", r.State)
			}
			o.verify(pool(m.cert))
		})
	}
}

// TestChangedEvidence flips bytes of what is kept, all of them with MSL_SOAK=1.
func TestChangedEvidence(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	f.certificates = [][]byte{m.certify(f.ek.Public(), nil)}
	o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}, nil)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	r := o.record(f.id())
	v := Verifier{Roots: pool(m.cert), CA: o.c.Certificate}
	if err := v.Verify(&r); err != nil {
		t.Fatal(err)
	}
	parts := map[string][]byte{
		"proof": r.Evidence.Proof, "EK certificate": r.Evidence.Chain[0], "root": r.Evidence.Chain[1],
		"EK hash": r.ID[:], "key name": r.Keys[0].Name, "key": r.Keys[0].Public, "certificate": r.Certificates[0].DER,
	}
	step := 13
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	for name, part := range parts {
		for i := 0; i < len(part); i += step {
			part[i] ^= 1 << (i % 8)
			if err := v.Verify(&r); !errors.Is(err, ErrEvidence) {
				t.Errorf("%s: byte %d of %d: %v", name, i, len(part), err)
			}
			part[i] ^= 1 << (i % 8)
		}
	}
	if err := v.Verify(&r); err != nil {
		t.Error(err)
	}
	late := v
	late.Time = time.Now().Add(48 * time.Hour)
	checkError(t, late.Verify(&r), ErrEvidence)
	checkError(t, Verifier{}.Verify(&r), ErrEvidence)
	r.Keys[0].Current = false
	checkError(t, v.Verify(&r), ErrEvidence)
	checkError(t, v.Verify(&Record{}), ErrEvidence)
}

func TestIDOfCertificate(t *testing.T) {
	f := newForger(t)
	id, err := ParseID(f.id().String())
	if err != nil || id != f.id() {
		t.Errorf("%v, %v", id, err)
	}
	text, err := json.Marshal(map[ID]ID{id: id})
	if err != nil || !bytes.Contains(text, []byte(id.String())) {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := ParseID("12"); err == nil {
		t.Error("a short hash is taken")
	}
	// Other attributes do not make another device.
	f.pubs.ek.ObjectAttributes.NoDA = true
	b := f.begin()
	o, err := b.Open()
	if err != nil || o.EKHash != id {
		t.Errorf("%v, %v", o.EKHash, err)
	}
}
