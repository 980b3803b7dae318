package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"
	"os"
	"slices"
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

// tcgKey is a key of a maker as the TCG has it: with a policy for who may change it, and
// subject to the dictionary attack protection.
func tcgKey(restricted bool, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		NameAlg: hash, AuthPolicy: tpm2.TPM2BDigest{Buffer: bytes.Repeat([]byte{7}, sizeOf(hash))},
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, AdminWithPolicy: true,
			SignEncrypt: true, Restricted: restricted,
		},
	}
}

// tcgECC and tcgRSA are its templates: an IAK has a scheme, an IDevID of RSA has none.
func tcgECC(restricted bool, curve tpm2.TPMECCCurve, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	t := tcgKey(restricted, hash)
	t.Type = tpm2.TPMAlgECC
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve, Scheme: tpm2.TPMTECCScheme{
		Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash}),
	}})
	return t
}

func tcgRSA(restricted bool, bits tpm2.TPMKeyBits, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	t := tcgKey(restricted, hash)
	t.Type = tpm2.TPMAlgRSA
	scheme := tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}
	if restricted {
		scheme = tpm2.TPMTRSAScheme{
			Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash}),
		}
	}
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: bits, Scheme: scheme})
	return t
}

// TestMakersTemplates enrolls devices whose makers made their keys from the templates of the
// TCG, also with an authority that knows none but those for SHA-256.
func TestMakersTemplates(t *testing.T) {
	ctx, m := context.Background(), newDeviceMaker(t)
	for name, template := range map[string]func(restricted bool) tpm2.TPMTPublic{
		"H-1": func(r bool) tpm2.TPMTPublic { return tcgRSA(r, 2048, tpm2.TPMAlgSHA256) },
		"H-2": func(r bool) tpm2.TPMTPublic { return tcgECC(r, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256) },
		"H-3": func(r bool) tpm2.TPMTPublic { return tcgECC(r, tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384) },
		"H-4": func(r bool) tpm2.TPMTPublic { return tcgECC(r, tpm2.TPMECCNistP521, tpm2.TPMAlgSHA512) },
	} {
		for kind, want := range map[string]error{"IAK": nil, "IDevID": ErrPending} {
			t.Run(name+" "+kind, func(t *testing.T) {
				chip, attests := connect(t, tpmtest.Start(t)), kind == "IAK"
				certify := func(k crypto.PublicKey) []byte { return m.issue(t, k, attests) }
				provideAs(t, chip, 0x81020001, template(attests), "", certify)
				o := newOffice(t, enroll.Policy{Devices: enroll.Bundle{Roots: pool(m.certificate)}})
				d := openDevice(t, chip, newPath(t))
				checkError(t, d.Init(ctx, InitOptions{EK: EKP256}, nil), nil)
				checkError(t, d.Enroll(ctx, o.exchange, nil), want)
				r := o.record(idOf(t, d))
				if why := r.Accepted + r.Waits; !strings.Contains(why, "SERIALNUMBER=box-7") {
					t.Error(why)
				}
				checkError(t, enroll.Verifier{CA: o.c.Certificate, DeviceRoots: pool(m.certificate)}.Verify(&r), nil)
			})
		}
	}
	chip := connect(t, tpmtest.Start(t))
	provideAs(t, chip, 0x81020002, tcgECC(true, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), "", func(crypto.PublicKey) []byte { return m.issue(t, m.key.Public(), true) })
	var said []string
	err := chip.Do(func(tp transport.TPM) error {
		_, err := findMakerKey(tp, func(s string) { said = append(said, s) })
		return err
	})
	if err != nil || len(said) != 1 || !strings.Contains(said[0], "for no key of this TPM") {
		t.Errorf("of another key: %q, %v", said, err)
	}
	provideAs(t, chip, 0x81020001, tcgECC(true, tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384), "", func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
	o := newOffice(t, accepting())
	old := func(ctx context.Context, request []byte) ([]byte, error) {
		if bytes.Contains(request, []byte(`"device":`)) {
			return proof.ErrorResult("", proof.Fail(ErrKey, "key of the device's maker: name algorithm 0xc")), nil
		}
		return o.exchange(ctx, request)
	}
	checkError(t, ready(t, chip, newPath(t)).Enroll(ctx, old, nil), nil)
}

// provideAgain has a TPM make a key from a template, stores its certificate at an index, and
// leaves nothing else of it.
func provideAgain(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle, template tpm2.TPMTPublic, certify func(crypto.PublicKey) []byte) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) error {
		k, err := madeAgain(tp, template)
		if err != nil {
			return err
		}
		return store(tp, at, certify(k.public.Key))
	})
	checkError(t, err, nil)
}

// madeFor is the template for a kind of key.
func madeFor(t *testing.T, kind string, restricted bool) tpm2.TPMTPublic {
	t.Helper()
	keys := map[string]crypto.PublicKey{
		"RSA 2048": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047)}, "RSA 3072": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 3071)},
		"P-256": &ecdsa.PublicKey{Curve: elliptic.P256()}, "P-384": &ecdsa.PublicKey{Curve: elliptic.P384()}, "P-521": &ecdsa.PublicKey{Curve: elliptic.P521()},
		"RSA 4096": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 4095)}, "P-224": &ecdsa.PublicKey{Curve: elliptic.P224()},
	}
	template, ok := makerTemplate(keys[kind], restricted)
	if ok != !slices.Contains([]string{"RSA 4096", "P-224"}, kind) {
		t.Errorf("%s: a template: %v", kind, ok)
	}
	return template
}

// TestMakersKeysMadeAgain enrolls devices whose makers certified keys that are not persistent, with
// an endorsement password, too.
func TestMakersKeysMadeAgain(t *testing.T) {
	m := newDeviceMaker(t)
	issue := func(attests bool) func(crypto.PublicKey) []byte {
		return func(k crypto.PublicKey) []byte { return m.issue(t, k, attests) }
	}
	for name, test := range map[string]struct {
		prepare func(*testing.T, *tpm.Device)
		want    error
		word    string
	}{
		"RSA 2048": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90010, madeFor(t, "RSA 2048", true), issue(true))
		}, nil, "box-7"},
		"RSA 3072": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90014, madeFor(t, "RSA 3072", true), issue(true))
		}, nil, "box-7"},
		"P-384": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90012, madeFor(t, "P-384", true), issue(true))
		}, nil, "box-7"},
		"P-521": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90013, madeFor(t, "P-521", true), issue(true))
		}, nil, "box-7"},
		"an IDevID": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90001, madeFor(t, "P-256", false), issue(false))
		}, ErrPending, "its IDevID belongs to SERIALNUMBER=box-7"},
		"both": {func(t *testing.T, d *tpm.Device) {
			provideAgain(t, d, 0x01c90001, madeFor(t, "P-256", false), issue(false))
			provideAgain(t, d, 0x01c90011, madeFor(t, "P-256", true), issue(true))
		}, nil, "box-7"},
		"a persistent IDevID": {func(t *testing.T, d *tpm.Device) {
			provide(t, d, 0x81020000, false, issue(false))
			provideAgain(t, d, 0x01c90011, madeFor(t, "P-256", true), issue(true))
		}, nil, "box-7"},
		"only a persistent IDevID": {func(t *testing.T, d *tpm.Device) {
			provide(t, d, 0x81020000, false, issue(false))
		}, ErrPending, "its IDevID belongs to SERIALNUMBER=box-7"},
		"Ed25519": {func(t *testing.T, d *tpm.Device) {
			key, _, err := ed25519.GenerateKey(nil)
			checkError(t, err, nil)
			checkError(t, d.Do(func(tp transport.TPM) error { return store(tp, 0x01c90011, m.issue(t, key, true)) }), nil)
		}, ErrPending, "its EK is unknown"},
		"of another TPM": {func(t *testing.T, d *tpm.Device) {
			checkError(t, d.Do(func(tp transport.TPM) error { return store(tp, 0x01c90011, m.issue(t, m.key.Public(), true)) }), nil)
		}, ErrPending, "its EK is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "RSA 3072" && os.Getenv("MSL_SOAK") == "" {
				t.Skip("it takes some seconds")
			}
			chip := connect(t, tpmtest.Start(t))
			test.prepare(t, chip)
			o := newOffice(t, enroll.Policy{Devices: enroll.Bundle{Roots: pool(m.certificate)}})
			d := openDevice(t, chip, newPath(t))
			checkError(t, d.Init(t.Context(), InitOptions{EK: EKP256}, nil), nil)
			checkError(t, d.Enroll(t.Context(), o.exchange, nil), test.want)
			r := o.record(idOf(t, d))
			if why := r.Accepted + r.Waits; !strings.Contains(why, test.word) {
				t.Error(why)
			}
			checkError(t, enroll.Verifier{CA: o.c.Certificate, DeviceRoots: pool(m.certificate)}.Verify(&r), nil)
			if left := objectsLeft(t, chip); len(left) > 0 {
				t.Errorf("left in the TPM: %#x", left)
			}
		})
	}
	madeFor(t, "RSA 4096", false)
	madeFor(t, "P-224", true)
}

// objectsLeft lists the transient objects in a TPM.
func objectsLeft(t *testing.T, chip *tpm.Device) (left []uint32) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) (err error) {
		left, err = tpm.Handles(tp, 0x80000000, 0x80ffffff)
		return err
	})
	checkError(t, err, nil)
	return left
}

// TestMakersKeyNotMade continues without a key that the TPM does not make, and not without one that
// it cannot make at this time.
func TestMakersKeyNotMade(t *testing.T) {
	m, p := newDeviceMaker(t), tpmtest.Start(t)
	chip := connect(t, p)
	provideAgain(t, chip, 0x01c90013, madeFor(t, "P-521", true), func(k crypto.PublicKey) []byte { return m.issue(t, k, true) })
	chip.Close()
	for code, want := range map[uint32]error{
		0: nil, uint32(tpm2.TPMRCCurve) | 0x2c0: nil, uint32(tpm2.TPMRCHierarchy) | 0x185: nil, 0x904: tpm2.TPMRCMemory, 0x921: tpm2.TPMRCLockout, 0x101: tpm2.TPMRCFailure,
	} {
		chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			if code == 0 || tpmtest.Command(command) != uint32(tpm2.TPMCCCreatePrimary) {
				return send(command)
			}
			return tpmtest.Refuse(code), nil
		}), time.Minute)
		checkError(t, err, nil)
		var said []string
		err = chip.Do(func(tp transport.TPM) error {
			k, err := findMakerKey(tp, func(s string) { said = append(said, s) })
			if (k == nil) != (code != 0) {
				t.Errorf("%#x: key %v", code, k)
			}
			return err
		})
		checkError(t, err, want)
		if told := strings.Contains(strings.Join(said, "\n"), "TPM2_CreatePrimary"); told != (code != 0 && want == nil) {
			t.Errorf("%#x: %q", code, said)
		}
		chip.Close()
	}
}
