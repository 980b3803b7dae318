package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// FuzzAnswers sends anything to a device.
func FuzzAnswers(f *testing.F) {
	f.Add(proof.Encode(proof.Challenge{
		Type: proof.TypeChallenge, Version: proof.Version, Nonce: random(32), Issued: 1, Credential: random(52), Seed: random(256), MAC: random(32),
	}))
	f.Add(proof.ErrorResult("12", ErrRejected))
	f.Add(proof.Encode(proof.Result{Type: proof.TypeResult, Version: 1, State: proof.StateEnrolled, Name: "box"}))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if c, err := readAnswer[proof.Challenge](answer, proof.TypeChallenge); err == nil && !bytes.Equal(proof.Encode(c), answer) {
			t.Fatal("a challenge of two forms")
		}
		if r, err := proof.ParseResult(answer); err == nil && (r.State != proof.StateEnrolled || !bytes.Equal(proof.Encode(r), answer)) {
			t.Fatal("a result of two forms")
		}
	})
}

// FuzzState reads anything as a state file, with a checksum that fits.
func FuzzState(f *testing.F) {
	point := tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{ // that of the curve's generator
		X: tpm2.TPM2BECCParameter{Buffer: fromHex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")},
		Y: tpm2.TPM2BECCParameter{Buffer: fromHex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")},
	})
	ek, key := tpm2.ECCEKTemplate, signing()
	key.ObjectAttributes.Restricted = false
	ek.Unique, key.Unique = point, point
	s := state{
		Version: 1, EK: &ekState{Kind: EKP256, Public: tpm2.Marshal(ek)},
		Keys:     []tpm.Blob{{Algorithm: keystore.ECDSAP256, Public: tpm2.Marshal(key)}},
		Identity: &deviceResult{Name: "box"},
	}
	good, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, payload []byte) {
		data, _ := statefile.Join(stateMagic, payload)
		s, _, err := parseState(data)
		if err != nil {
			if bytes.Equal(payload, good) {
				t.Fatal(err)
			}
			return
		}
		s.status(time.Now())
		keyring{store: &tpm.Store{}, file: &file{state: s}}.credentials()
	})
}

func fromHex(digits string) []byte {
	b, _ := hex.DecodeString(digits)
	return b
}

// FuzzCertificates parses anything that a manufacturer may have left in the indices of a
// TPM: certificates, templates and nonces.
func FuzzCertificates(f *testing.F) {
	f.Add(append([]byte{0x30, 0x82, 1, 0, 0x30, 0x82, 0, 200, 0xa0, 3, 2}, make([]byte, 300)...), []byte{0x10, 1, 0, 0, 0, 0x10, 2})
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate), tpm2.Marshal(tpm2.New2B(tpm2.ECCEKTemplate)))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		size := 0
		for _, der := range proof.Certificates(one, two) {
			if len(der) < 8 || len(der) > proof.MaxPart {
				t.Fatalf("a certificate of %d bytes", len(der))
			}
			size += len(der)
			proof.ParseCertificate(der)
		}
		if size > 2*(len(one)+len(two)) {
			t.Fatalf("%d bytes of %d", size, len(one)+len(two))
		}
		if template, ok := parseTemplate(one); ok {
			withNonce(*template, two)
			tpm2.Marshal(*template)
		}
	})
}
