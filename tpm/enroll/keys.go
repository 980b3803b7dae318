package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// srkHandle is that of the storage root key (TCG TPM v2.0 Provisioning
// Guidance, section 7.8).
const srkHandle tpm2.TPMHandle = 0x81000001

func flush(t transport.TPM, h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(t) // the Device flushes what is left
}

// storageKey returns the storage key, and makes it where there is none. Any
// storage key that is there will do.
func storageKey(t transport.TPM, create bool) (tpm2.NamedHandle, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: srkHandle}.Execute(t)
	if err == nil {
		return tpm2.NamedHandle{Handle: srkHandle, Name: r.Name}, nil
	}
	err = tpm.CommandError("TPM2_ReadPublic", err)
	if !create || !errors.Is(err, keystore.ErrNotFound) {
		return tpm2.NamedHandle{}, err
	}
	p, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return tpm2.NamedHandle{}, tpm.CommandError("TPM2_CreatePrimary", err)
	}
	defer flush(t, p.ObjectHandle)
	_, err = tpm2.EvictControl{
		Auth:         tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle: &tpm2.NamedHandle{Handle: p.ObjectHandle, Name: p.Name}, PersistentHandle: srkHandle,
	}.Execute(t)
	if err != nil {
		return tpm2.NamedHandle{}, tpm.CommandError("TPM2_EvictControl", err)
	}
	return tpm2.NamedHandle{Handle: srkHandle, Name: p.Name}, nil
}

// template is the public area of a key that signs: for an AK only what the TPM
// says itself, for an LDevID anything. No password, and so no protection against
// guessing either: a loss of power after a use would count as a wrong guess.
func template(a keystore.Algorithm, restricted bool) (tpm2.TPMTPublic, error) {
	t := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
		Restricted: restricted, SignEncrypt: true,
	}}
	none := tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}
	switch a {
	case keystore.ECDSAP256:
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: none, CurveID: tpm2.TPMECCNistP256, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	case keystore.RSASign2048:
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Symmetric: none, KeyBits: 2048,
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
		})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	default:
		return t, fmt.Errorf("enroll: a device identity is %v or %v, not %v: %w",
			keystore.ECDSAP256, keystore.RSASign2048, a, errors.ErrUnsupported)
	}
	return t, nil
}

func createKey(t transport.TPM, a keystore.Algorithm, restricted bool) (blob, error) {
	area, err := template(a, restricted)
	if err != nil {
		return blob{}, err
	}
	parent, err := storageKey(t, false)
	if err != nil {
		return blob{}, err
	}
	r, err := tpm2.Create{ParentHandle: authorised(parent), InPublic: tpm2.New2B(area)}.Execute(t)
	if err != nil {
		return blob{}, tpm.CommandError("TPM2_Create", err)
	}
	return blob{Algorithm: a, Public: r.OutPublic.Bytes(), Private: r.OutPrivate.Buffer}, nil
}

// authorised is a handle with an empty password.
func authorised(h tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h.Handle, Name: h.Name, Auth: tpm2.PasswordAuth(nil)}
}

// use loads a key for f.
func (b *blob) use(t transport.TPM, f func(tpm2.NamedHandle) error) error {
	parent, err := storageKey(t, false)
	if err != nil {
		return cleared(err)
	}
	r, err := tpm2.Load{
		ParentHandle: authorised(parent),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: b.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](b.Public),
	}.Execute(t)
	if err != nil {
		return cleared(tpm.CommandError("TPM2_Load", err))
	}
	defer flush(t, r.ObjectHandle)
	return f(tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name})
}

// cleared explains why a key of before does not load.
func cleared(err error) error {
	if errors.Is(err, keystore.ErrForeign) || errors.Is(err, keystore.ErrNotFound) {
		return fail(ErrCleared, "%w", err)
	}
	return err
}

// certify lets the AK say that a key is in its TPM.
func (b *blob) certify(t transport.TPM, key *blob, qualifying []byte) (p keyProof, err error) {
	err = b.use(t, func(ak tpm2.NamedHandle) error {
		return key.use(t, func(k tpm2.NamedHandle) error {
			r, err := tpm2.Certify{
				ObjectHandle: authorised(k), SignHandle: authorised(ak),
				QualifyingData: tpm2.TPM2BData{Buffer: qualifying}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			}.Execute(t)
			if err != nil {
				return tpm.CommandError("TPM2_Certify", err)
			}
			p.Attest, p.Signature = r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature)
			return nil
		})
	})
	return p, err
}

// A signer is an LDevID as the standard library wants it.
type signer struct {
	tpm  TPM
	blob blob
	key  crypto.PublicKey
}

func (d *Device) signer(b blob) (*signer, error) {
	p, err := parsePublic(b.Public)
	if err != nil {
		return nil, err
	}
	return &signer{tpm: d.tpm, blob: b, key: p.key}, nil
}

// Public returns the public key.
func (s *signer) Public() crypto.PublicKey { return s.key }

// Sign signs a SHA-256 digest: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("enroll: an LDevID signs SHA-256 digests: %w", errors.ErrUnsupported)
	}
	err = s.tpm.Do(func(t transport.TPM) error {
		return s.blob.use(t, func(k tpm2.NamedHandle) error {
			r, err := tpm2.Sign{
				KeyHandle: authorised(k), Digest: tpm2.TPM2BDigest{Buffer: digest},
				InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(t)
			if err != nil {
				return tpm.CommandError("TPM2_Sign", err)
			}
			signature, err = plainSignature(s.key, &r.Signature)
			return err
		})
	})
	return signature, err
}

// plainSignature takes a TPMT_SIGNATURE apart.
func plainSignature(key crypto.PublicKey, s *tpm2.TPMTSignature) ([]byte, error) {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		sig, err := s.Signature.ECDSA()
		if err != nil {
			return nil, fmt.Errorf("enroll: TPM2_Sign: %w", err)
		}
		return asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer),
		})
	}
	sig, err := s.Signature.RSASSA()
	if err != nil {
		return nil, fmt.Errorf("enroll: TPM2_Sign: %w", err)
	}
	return bytes.Clone(sig.Sig.Buffer), nil
}
