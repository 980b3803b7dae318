package proof

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
)

// TestSignatureVectors checks the signatures of Project Wycheproof in the form that a
// TPM gives them.
func TestSignatureVectors(t *testing.T) {
	for file, form := range map[string]struct {
		key  func(scheme, hash tpm2.TPMAlgID) tpm2.TPMTPublic
		sig  func(signature []byte, scheme, hash tpm2.TPMAlgID) (tpm2.TPMTSignature, bool)
		name tpm2.TPMAlgID // of the scheme
		hash tpm2.TPMAlgID
	}{
		"rsa_signature_2048_sha256":   {rsaWith, rsaOf, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256},
		"rsa_pss_2048_sha256_mgf1_32": {rsaWith, rsaOf, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256},
		"ecdsa_secp256r1_sha256":      {eccWith, ecdsaOf, tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256},
		"ecdsa_secp384r1_sha384":      {eccWith, ecdsaOf, tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA384},
	} {
		t.Run(file, func(t *testing.T) {
			wycheproof.Ask(t, wycheproof.Read(t, file), func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
				key, err := x509.ParsePKIXPublicKey(g.Public)
				if err != nil {
					t.Fatal(err)
				}
				signature, ok := form.sig(v.Signature, form.name, form.hash)
				if !ok {
					return wycheproof.NotAsked("not two positive numbers in DER, which a TPM has not")
				}
				if strings.Contains(v.Comment, "s_len changed") {
					return wycheproof.NotAsked("another salt, whose length a TPM chooses (Part 1, clause B.7)")
				}
				area := form.key(form.name, form.hash)
				p := Public{Area: &area, Key: key}
				err = checkTPMSignature(p, p.digest(v.Message), tpm2.Marshal(signature))
				if err != nil && !errors.Is(err, ErrSignature) {
					t.Errorf("%v: %v", v, err)
				}
				return wycheproof.Accepted(err == nil)
			})
		})
	}
}

// rsaWith and eccWith are the public areas of keys with a scheme.
func rsaWith(scheme, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	details := tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})
	if scheme == tpm2.TPMAlgRSAPSS {
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})
	}
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgRSA, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		KeyBits: 2048, Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details},
	})}
}

func eccWith(scheme, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{Scheme: scheme, Details: tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})},
	})}
}

func rsaOf(signature []byte, scheme, hash tpm2.TPMAlgID) (tpm2.TPMTSignature, bool) {
	return tpm2.TPMTSignature{SigAlg: scheme, Signature: tpm2.NewTPMUSignature(scheme,
		&tpm2.TPMSSignatureRSA{Hash: hash, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signature}})}, true
}

// ecdsaOf takes the numbers out of ASN.1.
func ecdsaOf(signature []byte, scheme, hash tpm2.TPMAlgID) (none tpm2.TPMTSignature, ok bool) {
	var n struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &n); err != nil || len(rest) > 0 || n.R.Sign() < 0 || n.S.Sign() < 0 {
		return none, false
	}
	again, err := asn1.Marshal(n)
	if err != nil || string(again) != string(signature) {
		return none, false
	}
	return tpm2.TPMTSignature{SigAlg: scheme, Signature: tpm2.NewTPMUSignature(scheme, &tpm2.TPMSSignatureECC{
		Hash:       hash,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: n.R.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: n.S.Bytes()},
	})}, true
}
