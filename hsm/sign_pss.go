package hsm

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
)

type pssKey struct{ *object }

// Public returns the *rsa.PublicKey.
func (k pssKey) Public() crypto.PublicKey { return k.public }

// signsRSA reports whether keys of a kind sign with RSA, in one way or another.
func signsRSA(k kind) bool {
	return k.keyType == pkcs11.CKK_RSA && k.usages[0] == pkcs11.CKA_SIGN
}

// onlyPSS reports whether a key is only for RSASSA-PSS. If it does not say so, it
// is assumed to sign with PKCS #1 v1.5.
func onlyPSS(mechanisms []string) bool {
	return len(mechanisms) == 1 && mechanisms[0] == mechanismsByName[pkcs11.CKM_RSA_PKCS_PSS]
}

// pssHashes are the hash functions of RSASSA-PSS, with their names in PKCS #11 and
// those of the mask generation that goes with them.
var pssHashes = map[crypto.Hash][2]uint{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// Sign signs a digest of SHA-256, SHA-384 or SHA-512 as RSASSA-PSS with a salt as long as
// the hash (RFC 8017 section 8.1). opts must be an [*rsa.PSSOptions].
func (k pssKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok || pss == nil {
		return nil, fmt.Errorf("hsm: the key signs only with RSA-PSS: %w", errors.ErrUnsupported)
	}
	_, known := pssHashes[pss.Hash]
	public, isRSA := k.public.(*rsa.PublicKey)
	switch {
	case !known || !isRSA:
		return nil, fmt.Errorf("hsm: sign a digest of %v with RSA-PSS: %w", pss.Hash, errors.ErrUnsupported)
	case pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != pss.Hash.Size():
		return nil, fmt.Errorf("hsm: sign with a salt of %d bytes: %w", pss.SaltLength, errors.ErrUnsupported)
	case len(digest) != pss.Hash.Size():
		return nil, fmt.Errorf("hsm: sign a digest of %d bytes, want %d", len(digest), pss.Hash.Size())
	}
	out := make([]byte, public.Size())
	err := k.run(func(session, handle uint) error {
		return k.store.signPSS(session, handle, public, pss.Hash, digest, out)
	})
	if err != nil {
		return nil, k.store.recovery.ours(err)
	}
	return out, nil
}

// signPSS signs a digest as RSASSA-PSS.
func (l keyCalls) signPSS(session, handle uint, public *rsa.PublicKey, hash crypto.Hash, digest, out []byte) error {
	names := pssHashes[hash]
	// CK_RSA_PKCS_PSS_PARAMS: hashAlg, mgf, sLen.
	params := appendWord(appendWord(appendWord(nil, names[0]), names[1]), uint(hash.Size()))
	clear(out)
	n, err := l.signWith(session, handle, pkcs11.CKM_RSA_PKCS_PSS, params, digest, out)
	if err = wrote("C_Sign", out, n, err); err == nil {
		salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		err = faultless(rsa.VerifyPSS(public, hash, digest, out, salt) == nil)
	}
	return err
}
