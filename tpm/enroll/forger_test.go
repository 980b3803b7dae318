package enroll

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A forger has the keys of a TPM in memory, so it can attest anything.
type forger struct {
	t            testing.TB
	ek           *rsa.PrivateKey
	ak           *ecdsa.PrivateKey
	key          *ecdsa.PrivateKey
	pubs         struct{ ek, ak, key tpm2.TPMTPublic }
	certificates [][]byte

	clock    tpm2.TPMSClockInfo // in quotes
	firmware uint64
}

// endorsementKeys are those of forgers, in turn: making one takes longer than most tests.
var endorsementKeys struct {
	mu   sync.Mutex
	keys [12]*rsa.PrivateKey
	next int
}

func newForger(t testing.TB) *forger {
	t.Helper()
	endorsementKeys.mu.Lock()
	defer endorsementKeys.mu.Unlock()
	ek := &endorsementKeys.keys[endorsementKeys.next%len(endorsementKeys.keys)]
	endorsementKeys.next++
	if *ek == nil {
		var err error
		if *ek, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	return forgerOf(t, *ek)
}

// forgerOf returns a forger with an EK whose making takes long.
func forgerOf(t testing.TB, ek *rsa.PrivateKey) *forger {
	t.Helper()
	f := &forger{t: t, ek: ek, ak: p256(t), key: p256(t)}
	f.pubs.ek = tpm2.RSAEKTemplate
	f.pubs.ek.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: f.ek.N.Bytes()})
	f.pubs.ak = eccArea(t, f.ak, true)
	f.pubs.key = eccArea(t, f.key, false)
	return f
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func eccArea(t testing.TB, key *ecdsa.PrivateKey, restricted bool) tpm2.TPMTPublic {
	t.Helper()
	area := tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
		Restricted: restricted, SignEncrypt: true,
	}}
	area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	})
	size := (key.Params().BitSize + 7) / 8
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: key.X.FillBytes(make([]byte, size))},
		Y: tpm2.TPM2BECCParameter{Buffer: key.Y.FillBytes(make([]byte, size))},
	})
	return area
}

func (f *forger) begin() proof.Begin {
	return proof.Begin{
		Type: proof.TypeBegin, Version: proof.Version, EKCertificates: f.certificates,
		EK: tpm2.Marshal(f.pubs.ek), AK: tpm2.Marshal(f.pubs.ak), Keys: [][]byte{tpm2.Marshal(f.pubs.key)},
	}
}

func (f *forger) id() ID {
	f.t.Helper()
	id, err := IDOf(f.ek.Public())
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

// open opens a credential as a TPM does (TPM 2.0 Library part 1, section 24).
func (f *forger) open(c proof.Challenge) []byte {
	f.t.Helper()
	seed, err := rsa.DecryptOAEP(sha256.New(), nil, f.ek, c.Seed, []byte("IDENTITY\x00"))
	if err != nil {
		f.t.Fatal(err)
	}
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", nameOf(f.pubs.ak), nil, 128))
	if err != nil {
		f.t.Fatal(err)
	}
	identity := c.Credential[2+sha256.Size:]
	plain := make([]byte, len(identity))
	//lint:ignore SA1019 credentials of a TPM are in this mode
	cipher.NewCFBDecrypter(block, make([]byte, 16)).XORKeyStream(plain, identity)
	return plain[2:]
}

func nameOf(area tpm2.TPMTPublic) []byte {
	name, err := tpm2.ObjectName(&area)
	if err != nil {
		panic(err)
	}
	return name.Buffer
}

// prove is what an honest device would do.
func (f *forger) prove(b proof.Begin, c proof.Challenge) proof.Proof {
	f.t.Helper()
	p := proof.Proof{Type: proof.TypeProof, Version: proof.Version, Begin: b, Challenge: c, Secret: f.open(c)}
	p.Keys = []proof.KeyProof{f.proveKey(p.Digest(proof.UseCertify), nil)}
	return p
}

// proveKey certifies the key, as modified by change.
func (f *forger) proveKey(qualifying []byte, change func(*tpm2.TPMSAttest)) proof.KeyProof {
	f.t.Helper()
	a := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: qualifying},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(f.pubs.key)}}),
	}
	if change != nil {
		change(&a)
	}
	p := f.sign(tpm2.Marshal(a))
	p.Request = f.request(f.key)
	return p
}

func (f *forger) sign(attest []byte) proof.KeyProof {
	f.t.Helper()
	digest := sha256.Sum256(attest)
	r, s, err := ecdsa.Sign(rand.Reader, f.ak, digest[:])
	if err != nil {
		f.t.Fatal(err)
	}
	return proof.KeyProof{Attest: attest, Signature: tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
		}),
	})}
}

func (f *forger) request(key crypto.Signer) []byte {
	f.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}}, key)
	if err != nil {
		f.t.Fatal(err)
	}
	return der
}

// renewal lets a key vouch for the proof.
func (f *forger) renewal(p *proof.Proof, key *ecdsa.PrivateKey) *proof.Renewal {
	f.t.Helper()
	signature, err := ecdsa.SignASN1(rand.Reader, key, p.Digest(proof.UseRenewal))
	if err != nil {
		f.t.Fatal(err)
	}
	return &proof.Renewal{Key: tpm2.Marshal(eccArea(f.t, key, false)), Signature: signature}
}

// ask gets a challenge for what the forger begins with.
func (f *forger) ask(o *office, b proof.Begin) proof.Challenge {
	f.t.Helper()
	response, err := o.Handle(f.t.Context(), proof.Encode(b))
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := proof.Parse[proof.Challenge](response, proof.TypeChallenge)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// enroll goes through an honest exchange.
func (f *forger) enroll(o *office) error {
	f.t.Helper()
	b := f.begin()
	_, err := o.Handle(f.t.Context(), proof.Encode(f.prove(b, f.ask(o, b))))
	return err
}

// A maker is a manufacturer of TPMs: it issues their certificates.
type maker struct {
	t    testing.TB
	key  crypto.Signer
	cert *x509.Certificate
}

func newMaker(t testing.TB, name string) *maker {
	t.Helper()
	m := &maker{t: t, key: p256(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	m.cert = m.issue(template, m.key.Public(), template)
	return m
}

func (m *maker) issue(template *x509.Certificate, key crypto.PublicKey, parent *x509.Certificate) *x509.Certificate {
	m.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// certify makes an EK certificate with an empty subject and a critical
// alternative name, as modified by change.
func (m *maker) certify(ek crypto.PublicKey, change func(*x509.Certificate)) []byte {
	m.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{{Id: subjectAltName(), Critical: true, Value: tpmName(m.t)}},
	}
	if change != nil {
		change(template)
	}
	return m.issue(template, ek, m.cert).Raw
}

// tpmName is a subject alternative name as in the TCG EK Credential Profile.
func tpmName(t testing.TB) []byte {
	t.Helper()
	attribute := func(n int, value string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 23, 133, 2, n}, Value: value}
	}
	rdns := pkix.RDNSequence{{attribute(1, "id:54534554"), attribute(2, "Forged"), attribute(3, "id:0001")}}
	inner, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: inner}})
	if err != nil {
		t.Fatal(err)
	}
	return outer
}

// renew enrolls with the endorsement of another key.
func (f *forger) renew(o *office, by *ecdsa.PrivateKey) error {
	f.t.Helper()
	b := f.begin()
	p := f.prove(b, f.ask(o, b))
	p.Renewal = f.renewal(&p, by)
	_, err := o.Handle(f.t.Context(), proof.Encode(p))
	return err
}
