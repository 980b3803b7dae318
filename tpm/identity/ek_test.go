package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A maker issues certificates of EKs, of its own or by an intermediate authority.
type maker struct {
	key           *ecdsa.PrivateKey
	root, between *x509.Certificate
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{key: key}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true}
	m.root = m.issue(t, ca, ca, key.Public())
	ca.Subject.CommonName = "Between"
	m.between = m.issue(t, ca, m.root, key.Public())
	return m
}

func (m *maker) issue(t *testing.T, template, parent *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(7), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, m.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// certify makes the certificate of the EK of a public area.
func (m *maker) certify(t *testing.T, public []byte) []byte {
	t.Helper()
	p, err := proof.ParsePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "EK"}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}}
	return m.issue(t, template, m.between, p.Key).Raw
}

// office trusts the root of the maker only.
func (m *maker) office(t *testing.T) *office {
	t.Helper()
	return newOffice(t, enroll.Policy{Bundle: bundleOf(t, []*x509.Certificate{m.root}), RefuseUnknown: true})
}

// primary returns the public area of an endorsement primary, or skips what the TPM has not.
func primary(t *testing.T, chip *tpm.Device, template tpm2.TPMTPublic) (public []byte) {
	t.Helper()
	err := chip.Do(func(tt transport.TPM) error {
		_, err := useTemplate(tt, template, func(ek) bool { return true }, func(k ek) error { public = k.public; return nil })
		return err
	})
	if errors.Is(err, tpm2.TPMRCCurve) || errors.Is(err, tpm2.TPMRCValue) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// TestKinds enrolls with each kind of EK, by its certificate in the TPM.
func TestKinds(t *testing.T) {
	for _, e := range ekInfos() {
		t.Run(string(e.kind), func(t *testing.T) {
			m, chip := newMaker(t), connect(t, tpmtest.Start(t))
			public := primary(t, chip, e.template)
			define(t, chip, e.certificate, m.certify(t, public))
			define(t, chip, 0x01c00100, m.between.Raw)
			d, o := ready(t, chip, newPath(t)), m.office(t)
			if err := d.Enroll(context.Background(), o.exchange, nil); err != nil {
				t.Fatal(err)
			}
			if s, err := d.Status(); err != nil || s.EK != e.kind {
				t.Errorf("%s, %v", s.EK, err)
			}
			if p, _ := proof.ParsePublic(public); !strings.HasPrefix(string(e.kind), string(p.Kind())) {
				t.Errorf("to the authority it is %s", p.Kind())
			}
		})
	}
}

// withoutRSA makes a TPM look like a small one that has elliptic curves only.
func withoutRSA(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	const refused, algorithms, firstAt = 0x2ca, 0, 19 // TPM_RC_TYPE, TPM_CAP_ALGS, and where the list begins
	rsa := []byte{0, 1, 0, 0x0b}                      // the beginning of a template: RSA, SHA-256
	answer, err := send(command)
	switch cc := tpm2.TPMCC(tpmtest.Command(command)); {
	case err != nil:
	case (cc == tpm2.TPMCCCreatePrimary || cc == tpm2.TPMCCCreate) && bytes.Contains(command, rsa):
		return tpmtest.Refuse(refused), nil
	case cc == tpm2.TPMCCGetCapability && command[13] == algorithms && answer[firstAt+1] == 1:
		answer[firstAt], answer[firstAt+1] = 0xff, 0xff // instead of the first, which is RSA
	}
	return answer, err
}

// TestNoRSA enrolls a device whose TPM has no RSA and no certificate.
func TestNoRSA(t *testing.T) {
	chip, err := tpm.NewDevice(tpmtest.Start(t).Quirky(withoutRSA), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer chip.Close()
	d := ready(t, chip, newPath(t))
	err = d.Init(t.Context(), InitOptions{Algorithms: []keystore.Algorithm{keystore.RSASign2048}}, nil)
	if checkError(t, err, errors.ErrUnsupported); !strings.Contains(err.Error(), "no RSA") {
		t.Error(err)
	}
	checkError(t, d.Enroll(t.Context(), newMaker(t).office(t).exchange, nil), ErrPolicy)
	if s, err := d.Status(); err != nil || s.EK != EKP256 {
		t.Errorf("%s, %v", s.EK, err)
	}
}

// TestSeveralCertificates has a damaged certificate before a good one, and a TPM that lists one
// index at a time.
func TestSeveralCertificates(t *testing.T) {
	m := newMaker(t)
	chip, err := tpm.NewDevice(tpmtest.Start(t).Quirky(tpmtest.Piecewise(1)), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer chip.Close()
	rsa, ecc := ekInfos()[0], ekInfos()[1]
	define(t, chip, rsa.certificate, []byte{0x30, 10, 0x30, 3, 2, 1, 1, 0x30, 0, 3, 1, 0}) // looks like one
	define(t, chip, ecc.certificate, m.certify(t, primary(t, chip, ecc.template)))
	define(t, chip, 0x01c00100, m.between.Raw[:100])
	define(t, chip, 0x01c00101, m.between.Raw[100:])
	d := ready(t, chip, newPath(t))
	checkError(t, d.Enroll(t.Context(), m.office(t).exchange, nil), nil)
	if s, err := d.Status(); err != nil || s.EK != ecc.kind {
		t.Errorf("%s, %v", s.EK, err)
	}
}

// TestStoredTemplates has EKs of a nonce, of a template or of both in the TPM, and a
// certificate that tells which key it is.
func TestStoredTemplates(t *testing.T) {
	nonce := bytes.Repeat([]byte{0x5a}, 20)
	for _, e := range ekInfos()[:2] {
		other := e.template
		other.ObjectAttributes.NoDA = true
		withOther, _ := withNonce(other, nonce)
		with, _ := withNonce(e.template, nonce)
		for name, tt := range map[string]struct {
			nonce, stored []byte
			key           tpm2.TPMTPublic
		}{
			"nonce":                   {nonce, nil, with},
			"template":                {nil, tpm2.Marshal(other), other},
			"template with its size":  {nil, tpm2.Marshal(tpm2.New2B(other)), other},
			"both":                    {nonce, tpm2.Marshal(other), withOther},
			"nonce that is not used":  {nonce, nil, e.template},
			"template that is none":   {nil, []byte("none"), e.template},
			"nonce that is too long":  {make([]byte, 300), nil, e.template},
			"template of another TPM": {nil, tpm2.Marshal(other), e.template},
		} {
			t.Run(string(e.kind)+" "+name, func(t *testing.T) {
				if os.Getenv("MSL_SOAK") == "" && e.kind == EKRSA2048 && name != "nonce" && name != "template" && name != "both" {
					t.Skip("a TPM takes long for keys of RSA: MSL_SOAK=1 tries them all")
				}
				m, chip := newMaker(t), connect(t, tpmtest.Start(t))
				public := primary(t, chip, tt.key)
				define(t, chip, e.certificate, m.certify(t, public))
				define(t, chip, 0x01c00100, m.between.Raw)
				if tt.nonce != nil {
					define(t, chip, e.nonce, tt.nonce)
				}
				if tt.stored != nil {
					define(t, chip, e.stored, tt.stored)
				}
				d := ready(t, chip, newPath(t))
				if err := d.Enroll(context.Background(), m.office(t).exchange, nil); err != nil {
					t.Fatal(err)
				}
				if !sameEK(saved(t, d).file.state.EK.Public, public) {
					t.Error("another EK")
				}
				if err := d.Init(context.Background(), InitOptions{}, nil); err != nil { // changes nothing
					t.Error(err)
				}
			})
		}
	}
}

// TestOddIndices has certificates in a TPM as makers leave them there.
func TestOddIndices(t *testing.T) {
	const first = tpm2.TPMHandle(0x01c00100)
	e := ekInfos()[1]
	m := newMaker(t)
	ctx := context.Background()
	for name, tt := range map[string]struct {
		own  func(chip *tpm.Device, der []byte)
		want error
	}{
		"split chain": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, der)
			define(t, chip, first, m.between.Raw[:100])
			define(t, chip, first+1, m.between.Raw[100:])
		}, nil},
		"split chain of PEM with a gap": {func(chip *tpm.Device, der []byte) {
			text := enroll.PEM("CERTIFICATE", m.between.Raw)
			define(t, chip, e.certificate, der)
			define(t, chip, first+3, text[:150])
			define(t, chip, first+0xff, text[150:])
		}, nil},
		"split after another one": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, der)
			define(t, chip, first, append(bytes.Clone(m.root.Raw), m.between.Raw[:60]...))
			define(t, chip, first+1, m.between.Raw[60:61])
			define(t, chip, first+2, append(bytes.Clone(m.between.Raw[61:]), 0xff, 0xff))
		}, nil},
		"padded chain": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, append(bytes.Clone(der), make([]byte, 80)...))
			define(t, chip, first, append(bytes.Clone(m.root.Raw), 0xff, 0xff, 0xff))
			define(t, chip, first+1, append(bytes.Clone(m.between.Raw), 0, 0, 0))
		}, nil},
		"junk in the chain": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, der)
			define(t, chip, first, bytes.Repeat([]byte{0x30, 0x82, 1, 0}, 40))
			define(t, chip, first+1, m.between.Raw)
			defineAs(t, chip, first+2, nil, 64, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true})
		}, nil},
		"the issuer's before it": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, append(bytes.Clone(m.between.Raw), der...))
		}, nil},
		"another EK's before it": {func(chip *tpm.Device, der []byte) {
			other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{Subject: pkix.Name{CommonName: "EK"}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}}
			define(t, chip, e.certificate, append(m.issue(t, template, m.between, other.Public()).Raw, der...))
			define(t, chip, first, m.between.Raw)
		}, nil},
		"header and PEM": {func(chip *tpm.Device, der []byte) {
			define(t, chip, e.certificate, append([]byte{0x10, 1, 0, 0, 0, 0x10, 2}, der...))
			define(t, chip, first, enroll.PEM("CERTIFICATE", m.between.Raw))
		}, nil},
		"read by the owner": {func(chip *tpm.Device, der []byte) {
			defineAs(t, chip, e.certificate, der, len(der), tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true})
			define(t, chip, first, m.between.Raw)
		}, nil},
		"never written": {func(chip *tpm.Device, der []byte) {
			defineAs(t, chip, e.certificate, nil, 900, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true})
		}, ErrPolicy},
		"read by nobody": {func(chip *tpm.Device, der []byte) {
			defineAs(t, chip, e.certificate, der, len(der), tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true})
		}, ErrPolicy},
		"no certificate": {func(chip *tpm.Device, der []byte) { define(t, chip, e.certificate, []byte("none")) }, ErrPolicy},
	} {
		t.Run(name, func(t *testing.T) {
			chip := connect(t, tpmtest.Start(t))
			tt.own(chip, m.certify(t, primary(t, chip, e.template)))
			d := openDevice(t, chip, newPath(t))
			if err := d.Init(ctx, InitOptions{EK: e.kind}, nil); err != nil {
				t.Fatal(err)
			}
			var said []string
			checkError(t, d.Enroll(ctx, m.office(t).exchange, func(s string) { said = append(said, s) }), tt.want)
			if text := strings.Join(said, "\n"); tt.want != nil && !strings.Contains(text, "0x1c0000a is not used: ") {
				t.Error(text)
			}
		})
	}
}

// TestCertificateFile gives the certificate of an EK by a file.
func TestCertificateFile(t *testing.T) {
	ctx, m, chip, path := context.Background(), newMaker(t), connect(t, tpmtest.Start(t)), newPath(t)
	public := primary(t, chip, tpm2.ECCEKTemplate)
	der := m.certify(t, public)
	text := append(enroll.PEM("CERTIFICATE", der), enroll.PEM("CERTIFICATE", m.between.Raw)...)
	d := openDevice(t, chip, path)
	foreign := m.certify(t, primary(t, chip, tpm2.RSAEKTemplate))
	checkError(t, d.Init(ctx, InitOptions{EK: EKP256, Certificate: foreign}, nil), ErrEKCertificate)
	checkError(t, d.Init(ctx, InitOptions{Certificate: []byte("none")}, nil), ErrEKCertificate)
	if err := d.Init(ctx, InitOptions{Certificate: text}, nil); err != nil { // tells the kind, too
		t.Fatal(err)
	}
	if err := d.Enroll(ctx, m.office(t).exchange, nil); err != nil {
		t.Fatal(err)
	}
	if !sameEK(saved(t, d).file.state.EK.Public, public) || len(saved(t, d).file.state.EK.Certificates) != 2 {
		t.Errorf("%+v", saved(t, d).file.state.EK)
	}
	if err := d.Init(ctx, InitOptions{}, nil); err != nil || len(saved(t, d).file.state.EK.Certificates) != 2 {
		t.Errorf("%v, and the certificates are lost", err)
	}
	turned := append(enroll.PEM("CERTIFICATE", m.between.Raw), enroll.PEM("CERTIFICATE", der)...)
	if err := d.Init(ctx, InitOptions{Certificate: turned}, nil); err != nil || !bytes.Equal(saved(t, d).file.state.EK.Certificates[0], der) {
		t.Errorf("the issuer's first: %v", err)
	}
	coded := base64.URLEncoding.EncodeToString(der) // as a maker's service has it
	for _, text := range []string{base64.StdEncoding.EncodeToString(der) + "\n", coded, `{"pubhash":"AA","certificate":"` + coded + `"}`} {
		if err := d.Init(ctx, InitOptions{Certificate: []byte(text)}, nil); err != nil || !bytes.Equal(saved(t, d).file.state.EK.Certificates[0], der) {
			t.Errorf("%.30s: %v", text, err)
		}
	}
	if err := d.Init(ctx, InitOptions{Certificate: der}, nil); err != nil || len(saved(t, d).file.state.EK.Certificates) != 1 {
		t.Errorf("%v, and the certificates stay", err)
	}
}
