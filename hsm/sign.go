package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type signKey struct{ *object }

// Public returns the *rsa.PublicKey or *ecdsa.PublicKey.
func (k signKey) Public() crypto.PublicKey { return k.public }

// Sign signs a digest: an RSA key signs only SHA-256, as PKCS #1 v1.5 (RFC 8017 section
// 8.2); an ECDSA key signs any of the SHA-2 family, as ASN.1 DER.
func (k signKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil {
		return nil, fmt.Errorf("hsm: sign without a hash: %w", errors.ErrUnsupported)
	}
	hash := opts.HashFunc()
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, fmt.Errorf("hsm: sign with RSA-PSS: %w", errors.ErrUnsupported)
	}
	switch hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return nil, fmt.Errorf("hsm: sign a digest of %v: %w", hash, errors.ErrUnsupported)
	}
	if len(digest) != hash.Size() {
		return nil, fmt.Errorf("hsm: sign a digest of %d bytes, want %d", len(digest), hash.Size())
	}
	if public, ok := k.public.(*rsa.PublicKey); ok {
		return k.signRSA(public, hash, digest)
	}
	return k.signECDSA(digest)
}

// prefixSHA256 is the DigestInfo of SHA-256 up to the digest (RFC 8017 section
// 9.2, note 1).
const prefixSHA256 = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

func (k signKey) signRSA(public *rsa.PublicKey, hash crypto.Hash, digest []byte) ([]byte, error) {
	if hash != crypto.SHA256 {
		return nil, fmt.Errorf("hsm: sign a digest of %v with RSA: %w", hash, errors.ErrUnsupported)
	}
	out := make([]byte, public.Size())
	err := k.run(func(session, handle uint) error { return k.store.signRSA(session, handle, public, digest, out) })
	if err != nil {
		return nil, k.store.recovery.ours(err)
	}
	return out, nil
}

// signRSA signs a digest of SHA-256 as PKCS #1 v1.5.
func (l keyCalls) signRSA(session, handle uint, public *rsa.PublicKey, digest, out []byte) error {
	clear(out)
	n, err := l.sign(session, handle, pkcs11.CKM_RSA_PKCS, append([]byte(prefixSHA256), digest...), out)
	if err = wrote("C_Sign", out, n, err); err == nil {
		err = faultless(rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, out) == nil)
	}
	return err
}

// faultless makes an error of a signature that its public key does not verify, which may reveal
// the private key: with RSA, if one half was computed wrongly (Boneh, DeMillo and Lipton, "On
// the Importance of Checking Cryptographic Protocols for Faults"); with ECDSA, if the device
// derives nonces from the message, and the same message is signed correctly besides (Ambrose
// et al., "Differential Attacks on Deterministic Signatures").
func faultless(verified bool) error {
	if !verified {
		return &Error{Function: "C_Sign", garbage: "a signature that the public key does not verify"}
	}
	return nil
}

func (k signKey) signECDSA(digest []byte) (out []byte, err error) {
	public, ok := k.public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("hsm: sign with a key for %T: %w", k.public, errors.ErrUnsupported)
	}
	err = k.run(func(session, handle uint) (err error) {
		out, err = k.store.signECDSA(session, handle, public, digest)
		return err
	})
	if err != nil {
		return nil, k.store.recovery.ours(err)
	}
	return out, nil
}

// signECDSA writes the r ‖ s of the token as ASN.1.
func (l keyCalls) signECDSA(session, handle uint, public *ecdsa.PublicKey, digest []byte) ([]byte, error) {
	field := (public.Curve.Params().BitSize + 7) / 8
	raw, part := make([]byte, 2*field), digest[:min(len(digest), field)] // of a longer one modules differ in what they make
	n, err := l.sign(session, handle, pkcs11.CKM_ECDSA, part, raw)
	if err = wrote("C_Sign", raw, n, err); err != nil {
		return nil, err
	}
	out, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:field]), new(big.Int).SetBytes(raw[field:])})
	if err != nil {
		return nil, err
	}
	return out, faultless(ecdsa.VerifyASN1(public, digest, out))
}

// publicKey reads a public key, or of RSA the public half of a private one.
func publicKey(l library, session, handle, keyType uint) (crypto.PublicKey, error) {
	if keyType == pkcs11.CKK_RSA {
		return publicRSA(l, session, handle)
	}
	all, err := l.attributes(session, handle, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	params, point := all[pkcs11.CKA_EC_PARAMS], all[pkcs11.CKA_EC_POINT]
	var curve elliptic.Curve
	var id asn1.ObjectIdentifier
	_, err = asn1.Unmarshal(params, &id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("hsm: EC parameters: %w", err)
	case id.Equal(curveID(keystore.ECDSAP256)):
		curve = elliptic.P256()
	case id.Equal(curveID(keystore.ECDSAP384)):
		curve = elliptic.P384()
	default:
		return nil, fmt.Errorf("hsm: elliptic curve %v: %w", id, errors.ErrUnsupported)
	}
	// The point is an OCTET STRING, which some modules leave out.
	var octets []byte
	if rest, err := asn1.Unmarshal(point, &octets); err == nil && len(rest) == 0 {
		point = octets
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("hsm: EC point: %w", err)
	}
	return public, nil
}

func publicRSA(l library, session, handle uint) (crypto.PublicKey, error) {
	all, err := l.attributes(session, handle, toldOfRSA...)
	if err != nil {
		return nil, err
	}
	return rsaPublic(all)
}

// rsaPublic makes a public key of attributes.
func rsaPublic(all map[uint][]byte) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(all[pkcs11.CKA_MODULUS]), new(big.Int).SetBytes(all[pkcs11.CKA_PUBLIC_EXPONENT])
	if n.Sign() == 0 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("hsm: RSA modulus of %d bits and exponent of %d bits: %w", n.BitLen(), e.BitLen(), errors.ErrUnsupported)
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}
