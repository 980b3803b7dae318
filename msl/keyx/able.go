package keyx

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Whether this side's keys can complete an offer is checked before it is sent: a
// responder acts on a message when it issues keys, and the requester could not read the
// result. Every such error is an errors.ErrUnsupported.

// unable is the error for an offer that cannot be made.
func unable(code msl.Code, scheme, why string) error {
	return msl.Failure(code, scheme, fmt.Errorf("%s: %w", why, errors.ErrUnsupported))
}

// imports checks that a store can import the session keys of an exchange.
func imports(store keystore.Store, scheme string) error {
	if _, ok := store.(keystore.Importer); !ok {
		return unable(msl.ErrKeyImportError, scheme, "the key store imports no session keys")
	}
	return nil
}

// decrypts checks whether a key decrypts with such options, by giving it nothing to
// decrypt: a key judges the options first, without using its device.
func decrypts(pair crypto.Decrypter, opts crypto.DecrypterOpts, scheme string) error {
	if _, ok := pair.Public().(*rsa.PublicKey); !ok {
		return unable(msl.ErrInvalidPublicKey, scheme, fmt.Sprintf("key pair of %T", pair.Public()))
	}
	_, err := pair.Decrypt(nil, nil, opts)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, keystore.ErrClosed) {
		return msl.Failure(msl.ErrDecryptNotSupported, scheme, err)
	}
	return nil
}
