package fleet

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A simulated device has the keys of a TPM in memory: what it sends is what a device with
// a TPM sends, and takes less time to make.
type simulated struct{ ek, ak, key *ecdsa.PrivateKey }

func simulate() (s simulated, err error) {
	for _, key := range []**ecdsa.PrivateKey{&s.ek, &s.ak, &s.key} {
		if *key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return s, err
		}
	}
	return s, nil
}

func point(key *ecdsa.PublicKey) *tpm2.TPMSECCPoint {
	raw, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	return &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]}}
}

func signer(key *ecdsa.PrivateKey, restricted bool) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: restricted, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
			CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point(&key.PublicKey)),
	}
}

func (s *simulated) begin(certificate []byte) proof.Begin {
	ek := tpm2.ECCEKTemplate
	ek.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point(&s.ek.PublicKey))
	return proof.Begin{
		Type: proof.TypeBegin, Version: proof.Version, EKCertificates: [][]byte{certificate},
		EK: tpm2.Marshal(ek), AK: tpm2.Marshal(signer(s.ak, true)), Keys: [][]byte{tpm2.Marshal(signer(s.key, false))},
	}
}

// open opens a credential (TPM 2.0 Library, Part 1, clause 24 and annex C.6.1).
func (s *simulated) open(c *proof.Challenge) ([]byte, error) {
	ephemeral, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](c.Seed)
	if err != nil {
		return nil, err
	}
	public, err := ecdh.P256().NewPublicKey(slices.Concat([]byte{4}, ephemeral.X.Buffer, ephemeral.Y.Buffer))
	if err != nil {
		return nil, err
	}
	private, err := s.ek.ECDH()
	if err != nil {
		return nil, err
	}
	z, err := private.ECDH(public)
	if err != nil {
		return nil, err
	}
	seed := tpm2.KDFe(crypto.SHA256, z, "IDENTITY", ephemeral.X.Buffer, point(&s.ek.PublicKey).X.Buffer, 256)
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", nameOf(signer(s.ak, true)), nil, 128))
	if err != nil {
		return nil, err
	}
	identity := c.Credential[2+sha256.Size:]
	plain := make([]byte, len(identity))
	//lint:ignore SA1019 credentials of a TPM are in this mode
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, identity)
	return plain[2:], nil
}

func nameOf(area tpm2.TPMTPublic) []byte {
	name, err := tpm2.ObjectName(&area)
	if err != nil {
		panic(err)
	}
	return name.Buffer
}

// certify is TPM2_Certify of the key by the AK.
func (s *simulated) certify(qualifying []byte) (k proof.KeyProof, err error) {
	k.Attest = tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: qualifying},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(signer(s.key, false))}}),
	})
	digest := sha256.Sum256(k.Attest)
	r, sig, err := ecdsa.Sign(rand.Reader, s.ak, digest[:])
	if err != nil {
		return k, err
	}
	k.Signature = tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash:       tpm2.TPMAlgSHA256,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
		SignatureS: tpm2.TPM2BECCParameter{Buffer: sig.FillBytes(make([]byte, 32))},
	})})
	k.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}}, s.key)
	return k, err
}

// enroll goes through the exchange of an enrollment.
func (s *simulated) enroll(ctx context.Context, through identity.Exchange, certificate []byte) error {
	b := s.begin(certificate)
	answer, err := through(ctx, proof.Encode(b))
	if err != nil {
		return err
	}
	c, err := proof.Parse[proof.Challenge](answer, proof.TypeChallenge)
	if err != nil {
		return fmt.Errorf("%w: %.200s", err, answer)
	}
	p := proof.Proof{Type: proof.TypeProof, Version: proof.Version, Begin: b, Challenge: c}
	if p.Secret, err = s.open(&c); err != nil {
		return err
	}
	k, err := s.certify(p.Digest(proof.UseCertify))
	if err != nil {
		return err
	}
	p.Keys = []proof.KeyProof{k}
	if answer, err = through(ctx, proof.Encode(p)); err != nil {
		return err
	}
	r, err := proof.ParseResult(answer)
	if err == nil && len(r.Certificates) != 1 {
		err = errors.New("no certificate")
	}
	return err
}

// A maker of simulated devices issues their EK certificates.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newMaker() (m maker, err error) {
	if m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return m, err
	}
	template := m.template()
	template.IsCA, template.KeyUsage, template.UnknownExtKeyUsage = true, x509.KeyUsageCertSign, nil
	template.Subject.CommonName = "Maker"
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.key.Public(), m.key)
	if err != nil {
		return m, err
	}
	m.cert, err = x509.ParseCertificate(der)
	return m, err
}

func (m maker) template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageKeyAgreement, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		IssuingCertificateURL: []string{"http://maker.example/ca.der"},
	}
}

// certify issues the EK certificate of a device.
func (m maker) certify(s *simulated) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, m.template(), m.cert, s.ek.Public(), m.key)
}
