package proof

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Public is the public area of a key in a TPM (TPM 2.0 Library, Part 2, clause
// 12.2.4).
type Public struct {
	Raw  []byte
	Area *tpm2.TPMTPublic
	Key  crypto.PublicKey
	Name []byte // algorithm (2) ‖ digest, which covers every bit of the area
}

// ParsePublic reads a TPMT_PUBLIC in its canonical form. Its key must be safe to compute
// with.
func ParsePublic(raw []byte) (Public, error) {
	area, err := unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return Public{}, Fail(ErrKey, "public area: %w", err)
	}
	p := Public{Raw: raw, Area: area}
	if p.Key, err = publicKey(area); err != nil {
		return Public{}, Fail(ErrKey, "%w", err)
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return Public{}, Fail(ErrKey, "name: %w", err)
	}
	p.Name = name.Buffer
	return p, nil
}

// unmarshal reads a structure that fills all of raw, in its canonical form.
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

// checkEK requires a key that only decrypts what is made for its TPM (TCG EK Credential
// Profile, appendix B).
func (p Public) checkEK() error {
	a := p.Area.ObjectAttributes
	if err := p.checkFixed("EK", a.Restricted && a.Decrypt && !a.SignEncrypt, "restricted and only for decryption"); err != nil {
		return err
	}
	switch p.Area.NameAlg {
	case tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512:
		return nil
	}
	return Fail(ErrKey, "EK: name algorithm %#x", uint16(p.Area.NameAlg))
}

// Kind returns the kind of an EK, or "" if it is not one of the known kinds.
func (p Public) Kind() EKKind { return KindOf(p.Key) }

// checkAK requires a restricted signing key.
func (p Public) checkAK() error {
	a := p.Area.ObjectAttributes
	if err := p.checkFixed("AK", a.Restricted && a.SignEncrypt && !a.Decrypt, "restricted and only for signatures"); err != nil {
		return err
	}
	return p.isSigning("AK", false)
}

// checkKey requires an unrestricted signing key.
func (p Public) checkKey() error {
	a := p.Area.ObjectAttributes
	if err := p.checkFixed("LDevID", a.SignEncrypt && !a.Decrypt && !a.Restricted, "unrestricted and only for signatures"); err != nil {
		return err
	}
	return p.isSigning("LDevID", true)
}

// CheckStorage requires a storage key that cannot leave its TPM, as a parent of imported
// keys.
func (p Public) CheckStorage() error {
	a := p.Area.ObjectAttributes
	return p.checkFixed("storage key", a.Restricted && a.Decrypt && !a.SignEncrypt, "restricted and only for decryption")
}

// CheckDecryption requires an RSA decryption key that cannot leave its TPM.
func (p Public) CheckDecryption() error {
	a := p.Area.ObjectAttributes
	return p.checkFixed("decryption key", !a.Restricted && a.Decrypt && !a.SignEncrypt, "unrestricted and only for decryption")
}

func (p Public) checkFixed(what string, usage bool, wanted string) error {
	a := p.Area.ObjectAttributes
	switch {
	case !a.FixedTPM:
		return Fail(ErrKey, "%s: it is not fixed to its TPM", what)
	case !a.FixedParent:
		return Fail(ErrKey, "%s: it is not fixed to its parent", what)
	case !a.SensitiveDataOrigin:
		return Fail(ErrKey, "%s: it was not made in the TPM", what)
	case !usage:
		return Fail(ErrKey, "%s: it is not %s", what, wanted)
	}
	return nil
}

// isSigning checks that the key signs, as RSA or ECDSA with SHA-256 and in a size that is taken.
func (p Public) isSigning(what string, anyScheme bool) error {
	if p.Area.NameAlg != tpm2.TPMAlgSHA256 {
		return Fail(ErrKey, "%s: name algorithm %#x", what, uint16(p.Area.NameAlg))
	}
	scheme, hash := p.scheme()
	if !(anyScheme && scheme == tpm2.TPMAlgNull) && (hash != tpm2.TPMAlgSHA256 || scheme == tpm2.TPMAlgRSAPSS) {
		return Fail(ErrKey, "%s: its scheme is not RSASSA or ECDSA with SHA-256", what)
	}
	switch key := p.Key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize == 256 {
			return nil
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits == 2048 || bits == 3072 {
			return nil
		}
	}
	return Fail(ErrKey, "%s: it is not ECDSA P-256 or RSA with 2048 or 3072 bits", what)
}

// scheme returns the scheme of a signing key, with its hash if the scheme is known here.
func (p Public) scheme() (scheme, hash tpm2.TPMAlgID) {
	if parameters, err := p.Area.Parameters.RSADetail(); err == nil {
		scheme = parameters.Scheme.Scheme
		if d, err := parameters.Scheme.Details.RSASSA(); err == nil && scheme == tpm2.TPMAlgRSASSA {
			hash = d.HashAlg
		}
		if d, err := parameters.Scheme.Details.RSAPSS(); err == nil && scheme == tpm2.TPMAlgRSAPSS {
			hash = d.HashAlg
		}
	}
	if parameters, err := p.Area.Parameters.ECCDetail(); err == nil {
		scheme = parameters.Scheme.Scheme
		if d, err := parameters.Scheme.Details.ECDSA(); err == nil && scheme == tpm2.TPMAlgECDSA {
			hash = d.HashAlg
		}
	}
	return scheme, hash
}

// Signing returns the scheme and the hash with which a key signs: its own, or RSASSA or
// ECDSA with SHA-256 if it leaves them open.
func (p Public) Signing() (scheme, hash tpm2.TPMAlgID) {
	scheme, hash = p.scheme()
	switch {
	case scheme != tpm2.TPMAlgNull:
		return scheme, hash
	case p.Area.Type == tpm2.TPMAlgRSA:
		return tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256
	}
	return tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256
}

// digest hashes what a key signs. It is nil if the key signs with an unknown hash.
func (p Public) digest(data []byte) []byte {
	switch _, hash := p.Signing(); hash {
	case tpm2.TPMAlgSHA256:
		sum := sha256.Sum256(data)
		return sum[:]
	case tpm2.TPMAlgSHA384:
		sum := sha512.Sum384(data)
		return sum[:]
	case tpm2.TPMAlgSHA512:
		sum := sha512.Sum512(data)
		return sum[:]
	}
	return nil
}
