package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// A signer is a key that a test has in its hands.
type signer struct {
	*ecdsa.PrivateKey
	Public Public
}

func newSigner(t testing.TB, restricted bool) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	area := tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
		Restricted: restricted, SignEncrypt: true,
	}}
	area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	})
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: key.X.FillBytes(make([]byte, 32))},
		Y: tpm2.TPM2BECCParameter{Buffer: key.Y.FillBytes(make([]byte, 32))},
	})
	p, err := ParsePublic(tpm2.Marshal(area))
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, p}
}

// attest signs as a TPM does.
func (s signer) attest(t testing.TB, attest []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(attest)
	r, v, err := ecdsa.Sign(rand.Reader, s.PrivateKey, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash:       tpm2.TPMAlgSHA256,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
		SignatureS: tpm2.TPM2BECCParameter{Buffer: v.FillBytes(make([]byte, 32))},
	})})
}

func (s signer) request(t testing.TB) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}}, s.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// prove makes a good proof, and a good quote.
func prove(t testing.TB, ek []byte, ak, key signer) (p Proof, q Quote) {
	t.Helper()
	p = Proof{Type: TypeProof, Version: Version, Begin: Begin{Type: TypeBegin, Version: Version, EK: ek, AK: ak.Public.Raw, Keys: [][]byte{key.Public.Raw}}}
	p.Secret = make([]byte, SecretSize) // nobody has proved anything over this one before
	rand.Read(p.Secret)
	attest := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: p.Digest(UseCertify)},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: key.Public.Name}}),
	})
	p.Keys = []KeyProof{{Attest: attest, Signature: ak.attest(t, attest), Request: key.request(t)}}
	zeros := sha256.Sum256(make([]byte, 32))
	quoted := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: p.Digest(UseQuote)},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{8, 0, 0}}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: zeros[:]},
		}),
	})
	return p, Quote{Attest: quoted, Signature: ak.attest(t, quoted), PCRs: []PCR{{Index: 3, Digest: make([]byte, 32)}}}
}

func ekOf(s signer) []byte {
	ek := tpm2.ECCEKTemplate
	ek.Unique = s.Public.Area.Unique
	return tpm2.Marshal(ek)
}

// FuzzParts puts anything into the parts of a proof.
func FuzzParts(f *testing.F) {
	ak, key, old := newSigner(f, true), newSigner(f, false), newSigner(f, false)
	p, q := prove(f, ekOf(newSigner(f, false)), ak, key)
	vouched, err := ecdsa.SignASN1(rand.Reader, old.PrivateKey, p.Digest(UseRenewal))
	if err != nil {
		f.Fatal(err)
	}
	good := p
	good.Quote, good.Renewal = &q, &Renewal{Key: old.Public.Raw, Signature: vouched}
	if _, err := good.Open(); err != nil {
		f.Fatal(err)
	}
	b, k := p.Begin, p.Keys[0]
	f.Add(b.EK, b.AK, b.Keys[0], k.Attest, k.Signature, k.Request, q.Attest, old.Public.Raw, vouched)
	f.Fuzz(func(t *testing.T, ek, ofAK, area, attest, signature, request, quoted, renewer, vouched []byte) {
		p := p
		p.Begin.EK, p.Begin.AK, p.Begin.Keys = ek, ofAK, [][]byte{area}
		p.Keys = []KeyProof{{Attest: attest, Signature: signature, Request: request}}
		for _, raw := range [][]byte{ek, ofAK, area, renewer} {
			if k, err := ParsePublic(raw); err == nil && !bytes.Equal(tpm2.Marshal(*k.Area), raw) {
				t.Fatal("a public area of two forms")
			}
		}
		// The most that an attacker with the AK can do.
		attested(ak.Public, quoted, ak.attest(t, quoted), tpm2.TPMSTAttestQuote, nil)
		CheckQuote(ak.Public, Quote{Attest: quoted, Signature: ak.attest(t, quoted), PCRs: q.PCRs}, p.Digest(UseQuote))
		CheckCertify(ak.Public, ak.Public, KeyProof{Attest: attest, Signature: ak.attest(t, attest)}, nil)
		checkTPMSignature(ak.Public, make([]byte, 32), signature)
		p.Renewal = &Renewal{Key: renewer, Signature: vouched}
		p.checkRenewal()
		checkRequest(ak.Public, request)
		if _, err := p.Open(); err == nil && !(bytes.Equal(ek, b.EK) && bytes.Equal(ofAK, b.AK) && bytes.Equal(area, b.Keys[0])) {
			t.Fatal("a proof of other keys")
		}
	})
}
