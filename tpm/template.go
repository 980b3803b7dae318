package tpm

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An origin is how a key came into the TPM. It determines the attributes in its public
// area.
type origin int

const (
	made       origin = iota // by TPM2_Create, inside the TPM
	given                    // by TPM2_Create, from outside bytes
	duplicated               // by TPM2_Import, from data that a peer wrapped for this TPM
)

// template returns the public area of a key for one algorithm, without its unique part.
// The empty authorization policy keeps every key in the TPM, including duplicated ones,
// since TPM2_Duplicate needs a policy. Keys without a PIN are not subject to the
// dictionary attack protection, which counts a sudden loss of power as a wrong PIN.
func template(a keystore.Algorithm, from origin, pin bool) (tpm2.TPMTPublic, error) {
	t := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256}
	t.ObjectAttributes = tpm2.TPMAObject{
		FixedTPM: from != duplicated, FixedParent: from != duplicated,
		SensitiveDataOrigin: from == made, UserWithAuth: true, NoDA: !pin,
	}
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.AESReveal128:
		t.ObjectAttributes.Decrypt = true
		t.ObjectAttributes.SignEncrypt = a != keystore.AESReveal128
		symmetric(&t, a.Size()*8, tpm2.TPMAlgCBC)
	case keystore.AESCMAC128:
		t.ObjectAttributes.SignEncrypt = true
		symmetric(&t, a.Size()*8, tpm2.TPMAlgCMAC)
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.SealMAC256:
		// The public area does not contain the key size. A key made by the TPM has the
		// size of a digest.
		t.ObjectAttributes.SignEncrypt = true
		t.Type = tpm2.TPMAlgKeyedHash
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: hmacScheme()})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{})
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096:
		t.ObjectAttributes.SignEncrypt = true
		rsaKey(&t, a.Size(), rsassa())
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		t.ObjectAttributes.Decrypt = true
		rsaKey(&t, a.Size(), tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull})
	case keystore.ECDSAP256:
		t.ObjectAttributes.SignEncrypt = true
		ecdsaKey(&t, tpm2.TPMECCNistP256, ecdsaScheme())
	case keystore.ECDSAP384:
		// The hash is the caller's choice: SHA-256 or SHA-384.
		t.ObjectAttributes.SignEncrypt = true
		ecdsaKey(&t, tpm2.TPMECCNistP384, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull})
	default:
		return t, unsupported(a)
	}
	return t, nil
}

// unsupported returns errors.ErrUnsupported with the reason why a TPM has no keys of an
// algorithm.
func unsupported(a keystore.Algorithm) error {
	why := "there is no such key"
	switch a {
	case keystore.AESWrap128:
		why = "a TPM does not wrap one of its keys with AES Key Wrap: wrap in another store"
	case keystore.AESUnwrap128, keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		why = "a TPM returns what it unwraps to this process: use a key that decrypts or reveals, or an ImportParent"
	case keystore.SealSession256, keystore.SealWrapping256:
		why = "a TPM seals under its own storage key; only seal-mac is a separate key"
	case keystore.SealMAC256:
		why = "only an Admin can make sealing keys"
	}
	return fmt.Errorf("tpm: %v: %s: %w", a, why, errors.ErrUnsupported)
}

func symmetric(t *tpm2.TPMTPublic, bits int, mode tpm2.TPMAlgID) {
	t.Type = tpm2.TPMAlgSymCipher
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgSymCipher, &tpm2.TPMSSymCipherParms{Sym: tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(bits)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, mode),
	}})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgSymCipher, &tpm2.TPM2BDigest{})
}

func hmacScheme() tpm2.TPMTKeyedHashScheme {
	return tpm2.TPMTKeyedHashScheme{
		Scheme:  tpm2.TPMAlgHMAC,
		Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
	}
}

func rsassa() tpm2.TPMTRSAScheme {
	return tpm2.TPMTRSAScheme{
		Scheme:  tpm2.TPMAlgRSASSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
	}
}

func ecdsaScheme() tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
	}
}

func rsaKey(t *tpm2.TPMTPublic, bits int, scheme tpm2.TPMTRSAScheme) {
	t.Type = tpm2.TPMAlgRSA
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: scheme, KeyBits: tpm2.TPMKeyBits(bits),
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
}

func ecdsaKey(t *tpm2.TPMTPublic, curve tpm2.TPMECCCurve, scheme tpm2.TPMTECCScheme) {
	t.Type = tpm2.TPMAlgECC
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: scheme, CurveID: curve,
		KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
}

// exchangeParent returns the template of an ImportParent: a storage key under the storage key
// with this public area. TPMs require that both encrypt with the same cipher.
func exchangeParent(under []byte) (tpm2.TPMTPublic, error) {
	t := tpm2.ECCSRKTemplate
	cipher, err := storageCipher(under)
	if err != nil {
		return t, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: cipher, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, CurveID: tpm2.TPMECCNistP256,
		KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t, nil
}

// storageCipher returns the cipher with which a storage key encrypts those under it.
func storageCipher(public []byte) (c tpm2.TPMTSymDefObject, err error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return c, err
	}
	if p.Type == tpm2.TPMAlgRSA {
		parms, err := p.Parameters.RSADetail()
		if err != nil {
			return c, err
		}
		return parms.Symmetric, nil
	}
	parms, err := p.Parameters.ECCDetail()
	if err != nil {
		return c, err
	}
	return parms.Symmetric, nil
}

// Evidence is what the public area of a key proves. The TPM checks the area whenever it
// loads the key, so it cannot be changed.
type evidence struct {
	from   origin
	pin    bool
	public *tpm2.TPMTPublic
}

// inspect checks that a public area is exactly one that template makes, except for its
// unique part: any other attribute, scheme or policy is [keystore.ErrWeakKey].
func inspect(a keystore.Algorithm, public []byte) (evidence, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil || !bytes.Equal(tpm2.Marshal(p), public) {
		return evidence{}, fmt.Errorf("tpm: %v key: not a public area: %w", a, keystore.ErrBadData)
	}
	e := evidence{from: duplicated, pin: !p.ObjectAttributes.NoDA, public: p}
	switch {
	case p.ObjectAttributes.SensitiveDataOrigin:
		e.from = made
	case p.ObjectAttributes.FixedTPM:
		e.from = given
	}
	t, err := template(a, e.from, e.pin)
	if err != nil {
		return evidence{}, err
	}
	t.Unique = p.Unique
	if p.Type == t.Type && bytes.Equal(tpm2.Marshal(t), public) {
		return e, nil
	}
	return evidence{}, fmt.Errorf("tpm: the public area is not that of a %v key which stays in the TPM: %w", a, keystore.ErrWeakKey)
}

// key returns the public key of a key pair, or nil for a secret key.
func (e evidence) key() (crypto.PublicKey, error) {
	if e.public.Type != tpm2.TPMAlgRSA && e.public.Type != tpm2.TPMAlgECC {
		return nil, nil
	}
	public, err := tpm2.Pub(*e.public)
	if err != nil {
		return nil, fmt.Errorf("tpm: public key: %w: %w", keystore.ErrBadData, err)
	}
	return public, nil
}
