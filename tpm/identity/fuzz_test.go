package identity

import (
	"bytes"
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
		if c, err := readChallenge(answer); err == nil && !bytes.Equal(proof.Encode(c), answer) {
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
		X: tpm2.TPM2BECCParameter{Buffer: digest2B("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296").Buffer},
		Y: tpm2.TPM2BECCParameter{Buffer: digest2B("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5").Buffer},
	})
	ek, key := tpm2.ECCEKTemplate, signing()
	key.ObjectAttributes.Restricted = false
	ek.Unique, key.Unique = point, point
	s := state{
		Version: 1, EK: &ekState{EKP256, tpm2.Marshal(ek)},
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

// FuzzCertificates parses anything that a manufacturer may have left in a TPM.
func FuzzCertificates(f *testing.F) {
	f.Add(append([]byte{0x30, 0x82, 1, 0}, make([]byte, 300)...))
	f.Fuzz(func(t *testing.T, der []byte) {
		list := splitCertificates(der, 3)
		if len(list) > 3 || !bytes.HasPrefix(der, bytes.Join(list, nil)) {
			t.Fatalf("%d certificates", len(list))
		}
	})
}
