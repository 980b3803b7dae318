package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An ID names a device: the SHA-256 of its EK's public key in the form of a
// SubjectPublicKeyInfo (RFC 5280 section 4.1). It is the key alone, since
// nothing proves the attributes in an EK's public area: a device could change
// them to look like another one. It can be had from a certificate, too:
//
//	openssl x509 -in ek.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
type ID [sha256.Size]byte

// IDOf returns the ID of an EK.
func IDOf(ek crypto.PublicKey) (ID, error) {
	der, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return ID{}, fail(ErrKey, "EK: %w", err)
	}
	return sha256.Sum256(der), nil
}

// ParseID reads what String wrote.
func ParseID(s string) (id ID, err error) {
	return id, id.UnmarshalText([]byte(s))
}

// String returns 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes 64 hexadecimal digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(id) {
		return fmt.Errorf("enroll: an EK hash is 64 hexadecimal digits")
	}
	copy(id[:], b)
	return nil
}

// A public is the public area of a key in a TPM (TPM 2.0 Library part 2, section
// 12.2.4), whose key is one that can be used.
type public struct {
	raw  []byte
	area *tpm2.TPMTPublic
	key  crypto.PublicKey
	name []byte // algorithm (2) ‖ digest: it covers every bit of the area
}

func parsePublic(raw []byte) (public, error) {
	area, err := unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return public{}, fail(ErrKey, "public area: %w", err)
	}
	p := public{raw: raw, area: area}
	if p.key, err = publicKey(area); err != nil {
		return public{}, fail(ErrKey, "%w", err)
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return public{}, fail(ErrKey, "name: %w", err)
	}
	p.name = name.Buffer
	return p, nil
}

// unmarshal reads a structure that fills all of raw and has one form.
func unmarshal[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](raw []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](raw)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), raw) {
		return nil, fmt.Errorf("not in its canonical form")
	}
	return v, nil
}

// publicKey returns a key that is safe to compute with.
func publicKey(area *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 || bits%8 != 0 || key.N.Bit(0) == 0 || key.E != 65537 {
			return nil, fmt.Errorf("RSA key of %d bits with exponent %d", bits, key.E)
		}
	case *ecdsa.PublicKey:
		if _, err := key.ECDH(); err != nil {
			return nil, fmt.Errorf("point is not on its curve")
		}
	}
	return key, nil
}

// checkEK wants a key that decrypts what is made for its TPM and nothing else
// (TCG EK Credential Profile, appendix B).
func (p public) checkEK() error {
	a := p.area.ObjectAttributes
	if err := p.checkFixed("EK", a.Restricted && a.Decrypt && !a.SignEncrypt, "restricted and for decryption alone"); err != nil {
		return err
	}
	if p.area.NameAlg != tpm2.TPMAlgSHA256 && p.area.NameAlg != tpm2.TPMAlgSHA384 {
		return fail(ErrKey, "EK: name algorithm %#x", uint16(p.area.NameAlg))
	}
	return nil
}

// ekKind is the kind of an EK, empty for one that this package does not make.
func (p public) ekKind() EKKind {
	switch key := p.key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() == 2048 {
			return EKRSA2048
		}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return EKP256
		case 384:
			return EKP384
		}
	}
	return ""
}

// checkAK wants a key that signs what its TPM says and nothing else.
func (p public) checkAK() error {
	a := p.area.ObjectAttributes
	if err := p.checkFixed("AK", a.Restricted && a.SignEncrypt && !a.Decrypt, "restricted and for signatures alone"); err != nil {
		return err
	}
	_, err := p.algorithm("AK", false)
	return err
}

// checkKey wants a key that signs anything.
func (p public) checkKey() error {
	a := p.area.ObjectAttributes
	if err := p.checkFixed("LDevID", a.SignEncrypt && !a.Decrypt && !a.Restricted, "unrestricted and for signatures alone"); err != nil {
		return err
	}
	_, err := p.algorithm("LDevID", true)
	return err
}

func (p public) checkFixed(what string, usage bool, wanted string) error {
	a := p.area.ObjectAttributes
	switch {
	case !a.FixedTPM:
		return fail(ErrKey, "%s: it is not fixed to its TPM", what)
	case !a.FixedParent:
		return fail(ErrKey, "%s: it is not fixed to its parent", what)
	case !a.SensitiveDataOrigin:
		return fail(ErrKey, "%s: it was not made in the TPM", what)
	case !usage:
		return fail(ErrKey, "%s: it is not %s", what, wanted)
	}
	return nil
}

// algorithm returns what a signing key does.
func (p public) algorithm(what string, anyScheme bool) (keystore.Algorithm, error) {
	if p.area.NameAlg != tpm2.TPMAlgSHA256 {
		return 0, fail(ErrKey, "%s: name algorithm %#x", what, uint16(p.area.NameAlg))
	}
	scheme, hash := p.scheme()
	if !(anyScheme && scheme == tpm2.TPMAlgNull) && hash != tpm2.TPMAlgSHA256 {
		return 0, fail(ErrKey, "%s: its scheme is not RSASSA or ECDSA with SHA-256", what)
	}
	switch key := p.key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize == 256 {
			return keystore.ECDSAP256, nil
		}
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return keystore.RSASign2048, nil
		case 3072:
			return keystore.RSASign3072, nil
		}
	}
	return 0, fail(ErrKey, "%s: it is not ECDSA P-256 or RSA with 2048 or 3072 bits", what)
}

// scheme returns the scheme of a signing key, with its hash if it is one that
// is known here.
func (p public) scheme() (scheme, hash tpm2.TPMAlgID) {
	if parameters, err := p.area.Parameters.RSADetail(); err == nil {
		scheme = parameters.Scheme.Scheme
		if d, err := parameters.Scheme.Details.RSASSA(); err == nil && scheme == tpm2.TPMAlgRSASSA {
			hash = d.HashAlg
		}
	}
	if parameters, err := p.area.Parameters.ECCDetail(); err == nil {
		scheme = parameters.Scheme.Scheme
		if d, err := parameters.Scheme.Details.ECDSA(); err == nil && scheme == tpm2.TPMAlgECDSA {
			hash = d.HashAlg
		}
	}
	return scheme, hash
}

// samePublic compares keys of the standard library.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
