package keyx

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// What an offer cannot be finished with is found before it is sent: a responder
// acts on a message when it gives the keys, and the requester could not read what
// came of it. Every such error is an errors.ErrUnsupported.

// unable says that an offer is not made.
func unable(code msl.Code, scheme, why string) error {
	return msl.Failure(code, scheme, fmt.Errorf("%s: %w", why, errors.ErrUnsupported))
}

// imports asks that a store takes the session keys that an exchange ends with.
func imports(store keystore.Store, scheme string) error {
	if _, ok := store.(keystore.Importer); !ok {
		return unable(msl.ErrKeyImportError, scheme, "the key store imports no session keys")
	}
	return nil
}

// decrypts asks a key whether it decrypts with such options, by giving it nothing
// to decrypt: a key judges the options first, and does not come to its device.
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
