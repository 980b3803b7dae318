package hsm

// Operations that bring bytes into this process, with keys made only for that.

import (
	"crypto"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/keywrap"
	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Provider says that the keys of a Store are in the PKCS #11 token.
func Provider() keystore.Provider { return keystore.Provider{Name: "pkcs11"} }

type decryptKey struct{ *object }

// Public returns the *rsa.PublicKey to encrypt for.
func (k decryptKey) Public() crypto.PublicKey { return k.public }

// Decrypt decrypts RSA-OAEP with SHA-1, MGF1-SHA-1 and no label (RFC 8017 section 7.1). It
// never decrypts PKCS #1 v1.5: the answers would be an oracle that also decrypts OAEP
// ciphertexts of the same key.
func (k decryptKey) Decrypt(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	oaep, ok := opts.(*rsa.OAEPOptions)
	if !ok || oaep.Hash != crypto.SHA1 || oaep.MGFHash > 0 && oaep.MGFHash != crypto.SHA1 || len(oaep.Label) > 0 {
		return nil, fmt.Errorf("hsm: the key decrypts only RSA-OAEP with SHA-1: %w", errors.ErrUnsupported)
	}
	if err := k.usable(); err != nil {
		return nil, err
	}
	out := make([]byte, k.algorithm.Size()/8)
	if len(ciphertext) != len(out) {
		return nil, fmt.Errorf("hsm: decrypt %d bytes: %w", len(ciphertext), keystore.ErrBadData)
	}
	n := 0
	decrypt := func(ciphertext []byte) func() error {
		return func() error {
			return k.use(k.store.sessions, func(session, handle uint, _ uint64) (err error) {
				n, err = k.store.decrypt(session, handle, pkcs11.CKM_RSA_PKCS_OAEP, nil, ciphertext, out)
				if most := len(out) - 2*sha1.Size - 2; err == nil && n > most { // or nothing was written
					err = exactly("C_Decrypt", n, most, nil)
				}
				return err
			})
		}
	}
	like := func() error {
		known, err := oaeptrial.Encrypt(k.public.(*rsa.PublicKey), make([]byte, 16))
		if err != nil {
			return err
		}
		return decrypt(known)()
	}
	if err := k.store.recovery.attempt(decrypt(ciphertext), like, k.object); err != nil {
		clear(out)
		return nil, k.store.recovery.badData("decrypt", err)
	}
	return out[:n], nil
}

type revealKey struct{ *object }

// maxRevealed is the largest wrapped key, in bytes, that Reveal unwraps: each eight bytes may
// take six calls.
const maxRevealed = 8192

// Reveal unwraps into an object that can be read, reads it and destroys it. In a token that
// makes no such objects the key decrypts block after block, 12 for a key of 16 bytes.
func (k revealKey) Reveal(wrapped []byte) ([]byte, error) {
	if err := k.usable(); err != nil {
		return nil, err
	}
	if !keywrap.Fits(len(wrapped)-8) || len(wrapped) > maxRevealed {
		return nil, fmt.Errorf("hsm: reveal %d bytes: %w", len(wrapped), keystore.ErrBadData)
	}
	if k.form.mechanism == pkcs11.CKM_AES_CBC {
		return k.revealBlocks(wrapped)
	}
	out := make([]byte, len(wrapped)-8)
	err := k.run(func(session, handle uint) error {
		before := blot(out)
		n, err := k.store.reveal(session, handle, wrapped, revealed(), out)
		if err = exactly("C_GetAttributeValue", n, len(out), err); err == nil && [aes.BlockSize]byte(out) == before {
			err = unwritten("C_GetAttributeValue")
		}
		return err
	})
	if err != nil {
		clear(out)
		return nil, k.store.recovery.badData("reveal", err)
	}
	return out, nil
}

// revealsBlocks reports whether a key is of the kind of that name: only such a key may decrypt
// and do nothing else.
func (e *evidence) revealsBlocks() bool {
	return e.class == pkcs11.CKO_SECRET_KEY && e.keyType == pkcs11.CKK_AES && e.size == keystore.AESReveal128.Size() &&
		slices.Equal(e.has, revealsBlocks().usages)
}

// kind is how the algorithm of a key looks in the way that this key does it.
func (e *evidence) kind() (kind, error) {
	if e.revealsBlocks() {
		return revealsBlocks(), nil
	}
	return kindOf(e.Algorithm)
}

func (k revealKey) revealBlocks(wrapped []byte) ([]byte, error) {
	iv := make([]byte, aes.BlockSize) // with zeros, CBC mode is the plain block cipher
	raw, ok, err := keywrap.Unwrap(wrapped, func(dst, src []byte) error { return cipherKey(k).decrypt(dst, iv, src) })
	if err == nil && !ok {
		err = fmt.Errorf("hsm: reveal: %w", keystore.ErrBadData)
	}
	return raw, err
}

// revealed is the template of an object made to be read.
func revealed() template {
	t := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY).number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET)
	return append(t.flag(pkcs11.CKA_PRIVATE, true), nest(readable())...)
}

// WrapData makes a session object of the bytes, wraps it and destroys it: many tokens
// wrap only keys.
func (k wrapKey) WrapData(raw []byte) ([]byte, error) {
	if err := k.usable(); err != nil {
		return nil, err
	}
	if !keywrap.Fits(len(raw)) {
		return nil, fmt.Errorf("hsm: wrap %d bytes: %w", len(raw), keystore.ErrBadData)
	}
	data := kind{keyType: pkcs11.CKK_GENERIC_SECRET}.secret(false, true)
	// Room for the value, so that no copy of it is left behind.
	t := append(make(template, 0, len(data)+2*word+len(raw)+8), data...).add(pkcs11.CKA_VALUE, raw)
	defer clear(t)
	out := make([]byte, len(raw)+8)
	err := k.run(func(session, handle uint) error {
		clear(out)
		n, err := k.store.wrapData(session, t, handle, out)
		return wrote("C_WrapKey", out, n, err)
	})
	if err != nil {
		return nil, k.store.recovery.ours(err)
	}
	return out, nil
}
