package identity

import (
	"bytes"
	"context"
	"crypto"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

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
	if err != nil || len(said) != 1 || !strings.Contains(said[0], "not for a persistent key of this TPM") {
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
