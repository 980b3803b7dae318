package keyx

import (
	"bytes"
	"errors"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// inKeyStore declares that the process sees no key bytes.
func inKeyStore() msl.Exposure {
	return msl.Exposure{Why: "session keys are wrapped and unwrapped as objects of the key store"}
}

// respond makes session keys and a response that wraps them, after its members that
// identify the request.
func respond(custody msl.Custody, store keystore.Store, random io.Reader, wrap func(keystore.Key) ([]byte, error), name func(*wire.Encoder)) (*msl.SessionKeys, []byte, error) {
	keys, err := custody.GenerateSessionKeys(store, random)
	if err != nil {
		return nil, nil, msl.KeyFailure(msl.ErrSessionKeyCreationFailure, "generate session keys", err, errors.ErrUnsupported)
	}
	encryption, signature, err := keys.Wrap(wrap)
	if err != nil {
		keys.Release()
		return nil, nil, msl.KeyFailure(msl.ErrWrapError, "wrap session keys", err, msl.ErrInvalidPublicKey, errors.ErrUnsupported)
	}
	e := wire.NewEncoder(1024)
	e.Begin()
	name(e)
	e.Bytes("encryptionkey", encryption)
	e.Bytes("hmackey", signature)
	e.End()
	return keys, e.Encoded(), nil
}

// unwrapKeys opens the two keys of a response.
func unwrapKeys(f *wire.Fields, by keystore.Unwrapper) (*msl.SessionKeys, error) {
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return nil, err
	}
	keys, err := msl.OpenSessionKeys(by, encryption, signature)
	if err != nil {
		return nil, msl.KeyFailure(msl.ErrUnwrapError, "unwrap session keys", err, keystore.ErrBadData, keystore.ErrForeign, errors.ErrUnsupported)
	}
	return keys, nil
}

// wrappedKeys reads the two keys of a response.
func wrappedKeys(f *wire.Fields) (encryption, signature []byte, err error) {
	encryption, signature = f.Bytes("encryptionkey"), f.Bytes("hmackey")
	return encryption, signature, malformed(f)
}

// blocks refuses with error 7 what AES Key Wrap cannot have written: it writes multiples of
// eight bytes.
func blocks(scheme string, wrapped []byte) error {
	if len(wrapped)%8 != 0 {
		return msl.Failure(msl.ErrCiphertextIllegalBlockSize, scheme, nil)
	}
	return nil
}

// wrappedNothing is what AES Key Wrap makes of no bytes, whatever the key: its initial value. Key
// stores refuse it.
func wrappedNothing() []byte { return bytes.Repeat([]byte{0xa6}, 8) }

// malformed turns the first failure of a reader of key data into a parse error.
func malformed(f *wire.Fields) error {
	if err := f.Err(); err != nil {
		return msl.Failure(msl.ErrMSLParseError, "key data", err)
	}
	return nil
}
