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
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A deviceMaker issues certificates for keys in the TPMs of its devices.
type deviceMaker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newDeviceMaker(t *testing.T) *deviceMaker {
	t.Helper()
	m := &deviceMaker{}
	var err error
	if m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Device Maker"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	m.certificate = m.sign(t, template, template, m.key.Public())
	return m
}

func (m *deviceMaker) sign(t *testing.T, template, parent *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
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

// issue makes a certificate of a key, for the use of a key that attests or not.
func (m *deviceMaker) issue(t *testing.T, key crypto.PublicKey, attests bool) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{SerialNumber: "box-7"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{ // a name of hardware (RFC 4108 section 5), which is critical
			Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true,
			Value: []byte{0x30, 0x15, 0xa0, 0x13, 0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 8, 4, 0xa0, 0x07, 0x30, 0x05, 0x06, 1, 0x2a, 0x04, 0},
		}},
	}
	if attests {
		template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}
	}
	return m.sign(t, template, m.certificate, key).Raw
}

// provide makes a key as a maker of devices does, and stores a certificate for it.
func provide(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle, restricted bool, certify func(crypto.PublicKey) []byte) {
	t.Helper()
	template := signing()
	template.ObjectAttributes.Restricted = restricted
	provideAs(t, chip, at, template, "", certify)
}

// provideAs makes such a key with a password.
func provideAs(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle, template tpm2.TPMTPublic, password string, certify func(crypto.PublicKey) []byte) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) error {
		r, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}},
		}.Execute(tp)
		if err != nil {
			return err
		}
		p, err := proof.ParsePublic(r.OutPublic.Bytes())
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, PersistentHandle: at,
		}.Execute(tp)
		if err != nil {
			return err
		}
		return store(tp, 0x01c90000+at&0xff, certify(p.Key))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// store writes data into a new NV index.
func store(tp transport.TPM, at tpm2.TPMHandle, data []byte) error {
	_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: at, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NoDA: true},
	})}.Execute(tp)
	if err != nil {
		return err
	}
	name, err := tpm2.NVReadPublic{NVIndex: at}.Execute(tp)
	if err != nil {
		return err
	}
	_, err = tpm2.NVWrite{
		AuthHandle: tpm2.AuthHandle{Handle: at, Name: name.NVName, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: at, Name: name.NVName}, Data: tpm2.TPM2BMaxNVBuffer{Buffer: data},
	}.Execute(tp)
	return err
}

// TestMakersCertificate enrolls devices by what their makers certified.
func TestMakersCertificate(t *testing.T) {
	ctx := context.Background()
	const iak, idevid = 0x81020001, 0x81020000
	m, stranger := newDeviceMaker(t), newDeviceMaker(t)
	for what, test := range map[string]struct {
		prepare func(*tpm.Device)
		want    error
		word    string // of why it is accepted, or waits
	}{
		"none": {func(*tpm.Device) {}, ErrPending, "its EK is unknown"},
		"an IAK": {func(d *tpm.Device) {
			provide(t, d, iak, true, func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
		}, nil, "maker: SERIALNUMBER=box-7"},
		"an IDevID": {func(d *tpm.Device) {
			provide(t, d, idevid, false, func(k crypto.PublicKey) []byte { return m.issue(t, k, false) })
		}, ErrPending, "its IDevID belongs to SERIALNUMBER=box-7"},
		"both": {func(d *tpm.Device) {
			provide(t, d, idevid, false, func(k crypto.PublicKey) []byte { return m.issue(t, k, false) })
			provide(t, d, iak, true, func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
		}, nil, "maker: SERIALNUMBER=box-7"},
		"an IDevID that claims to attest": {func(d *tpm.Device) {
			provide(t, d, idevid, false, func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
		}, ErrPending, "does not prove which TPM"},
		"an IAK without its usage": {func(d *tpm.Device) {
			provide(t, d, iak, true, func(k crypto.PublicKey) []byte { return m.issue(t, k, false) })
		}, ErrPending, "does not prove which TPM"},
		"of a stranger": {func(d *tpm.Device) {
			provide(t, d, iak, true, func(k crypto.PublicKey) []byte { return stranger.issue(t, k, true) })
		}, ErrPending, "maker is not accepted"},
		"of another key": {func(d *tpm.Device) {
			provide(t, d, iak, true, func(crypto.PublicKey) []byte { return m.issue(t, m.key.Public(), true) })
		}, ErrPending, "its EK is unknown"},
		"garbage": {func(d *tpm.Device) {
			provide(t, d, iak, true, func(crypto.PublicKey) []byte { return bytes.Repeat([]byte{0x30}, 300) })
		}, ErrPending, "its EK is unknown"},
	} {
		t.Run(what, func(t *testing.T) {
			chip, path := connect(t, tpmtest.Start(t)), newPath(t)
			test.prepare(chip)
			o := newOffice(t, enroll.Policy{Devices: enroll.Bundle{Roots: pool(m.certificate)}})
			d := ready(t, chip, path)
			checkError(t, d.Enroll(ctx, o.exchange, nil), test.want)
			r := o.record(idOf(t, d))
			if why := r.Accepted + r.Waits; !strings.Contains(why, test.word) {
				t.Errorf("%q, want %q", why, test.word)
			}
			if test.want == nil {
				checkError(t, d.Renew(ctx, o.exchange, nil), nil)
				r = o.record(r.ID)
			}
			v := enroll.Verifier{CA: o.c.Certificate, DeviceRoots: pool(m.certificate)}
			checkError(t, v.Verify(&r), nil)
			if len(r.Evidence.DeviceChain) > 0 {
				for _, part := range [][]byte{r.Evidence.Proof, r.Evidence.DeviceChain[0], r.Evidence.DeviceChain[1]} {
					for i := 0; i < len(part); i += 37 {
						part[i] ^= 1 << (i % 8)
						checkError(t, v.Verify(&r), enroll.ErrEvidence)
						part[i] ^= 1 << (i % 8)
					}
				}
				v.DeviceRoots = pool(stranger.certificate)
				checkError(t, v.Verify(&r), enroll.ErrEvidence)
			}
		})
	}
}

// TestMakersCertificateRelayed has one TPM vouch for the keys in another.
func TestMakersCertificateRelayed(t *testing.T) {
	ctx := context.Background()
	m := newDeviceMaker(t)
	genuine := connect(t, tpmtest.Start(t))
	provide(t, genuine, 0x81020001, true, func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
	o := newOffice(t, enroll.Policy{Devices: enroll.Bundle{Roots: pool(m.certificate)}})
	honest := ready(t, genuine, newPath(t))
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	relay := func(ctx context.Context, request []byte) ([]byte, error) {
		p, err := proof.Parse[proof.Proof](request, proof.TypeProof)
		if err != nil {
			return o.exchange(ctx, request)
		}
		a := honest.application(saved(t, honest), nil, nil)
		if err := a.do(func(tp transport.TPM) (err error) { a.maker, err = findMakerKey(tp, nil); return err }); err != nil {
			return nil, err
		}
		if err := a.proveDevice(&p); err != nil { // it certifies the AK of its own TPM alone
			return nil, err
		}
		return o.exchange(ctx, proof.Encode(p))
	}
	if err := d.Enroll(ctx, relay, nil); !errors.Is(err, ErrAttestation) {
		t.Errorf("relayed: %v", err)
	}
}

// TestMakersCertificateOldAuthority enrolls with an authority that does not know the keys of
// makers.
func TestMakersCertificateOldAuthority(t *testing.T) {
	m := newDeviceMaker(t)
	chip := connect(t, tpmtest.Start(t))
	provide(t, chip, 0x81020001, true, func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
	o := newOffice(t, accepting())
	old := func(ctx context.Context, request []byte) ([]byte, error) {
		if bytes.Contains(request, []byte(`"device":`)) {
			return proof.ErrorResult("", proof.Fail(ErrMalformed, "does not decode")), nil
		}
		return o.exchange(ctx, request)
	}
	checkError(t, ready(t, chip, newPath(t)).Enroll(context.Background(), old, nil), nil)
}
