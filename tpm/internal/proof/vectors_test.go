package proof

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
)

// TestSignatureVectors checks the signatures of Project Wycheproof in the form that a
// TPM gives them.
func TestSignatureVectors(t *testing.T) {
	for file, form := range map[string]func([]byte) (tpm2.TPMTSignature, bool){
		"rsa_signature_2048_sha256": rsassaOf, "ecdsa_secp256r1_sha256": ecdsaOf,
	} {
		t.Run(file, func(t *testing.T) {
			wycheproof.Ask(t, wycheproof.Read(t, file), func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
				key, err := x509.ParsePKIXPublicKey(g.Public)
				if err != nil {
					t.Fatal(err)
				}
				signature, ok := form(v.Signature)
				if !ok {
					return wycheproof.NotAsked("not two positive numbers in DER, which a TPM has not")
				}
				digest := sha256.Sum256(v.Message)
				err = checkTPMSignature(key, digest[:], tpm2.Marshal(signature))
				if err != nil && !errors.Is(err, ErrSignature) {
					t.Errorf("%v: %v", v, err)
				}
				return wycheproof.Accepted(err == nil)
			})
		})
	}
}

func rsassaOf(signature []byte) (tpm2.TPMTSignature, bool) {
	return tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
		&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signature}})}, true
}

// ecdsaOf takes the numbers out of ASN.1.
func ecdsaOf(signature []byte) (none tpm2.TPMTSignature, ok bool) {
	var n struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &n); err != nil || len(rest) > 0 || n.R.Sign() < 0 || n.S.Sign() < 0 {
		return none, false
	}
	again, err := asn1.Marshal(n)
	if err != nil || string(again) != string(signature) {
		return none, false
	}
	return tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash:       tpm2.TPMAlgSHA256,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: n.R.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: n.S.Bytes()},
	})}, true
}
