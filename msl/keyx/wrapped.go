package keyx

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// respond makes session keys and the response that wraps them, after the members
// of it that name the request.
func respond(custody msl.Custody, store keystore.Store, wrap func(keystore.Key) ([]byte, error), name func(*wire.Encoder)) (*msl.SessionKeys, []byte, error) {
	keys, err := custody.GenerateSessionKeys(store)
	if err != nil {
		return nil, nil, msl.KeyFailure(msl.ErrSessionKeyCreationFailure, "generate session keys", err, errors.ErrUnsupported)
	}
	encryption, err := wrap(keys.Encryption)
	if err == nil {
		var signature []byte
		if signature, err = wrap(keys.Signature); err == nil {
			e := wire.NewEncoder(1024)
			e.Begin()
			name(e)
			e.Bytes("encryptionkey", encryption)
			e.Bytes("hmackey", signature)
			e.End()
			return keys, e.Encoded(), nil
		}
	}
	keys.Release()
	return nil, nil, msl.KeyFailure(msl.ErrWrapError, "wrap session keys", err, msl.ErrInvalidPublicKey, errors.ErrUnsupported)
}

// unwrapKeys opens the two keys of a response.
func unwrapKeys(keydata []byte, by keystore.Unwrapper) (*msl.SessionKeys, error) {
	encryption, signature, err := keyMembers(keydata)
	if err != nil {
		return nil, err
	}
	keys, err := msl.UnwrapSessionKeys(encryption, signature, by.Unwrap)
	if err != nil {
		return nil, msl.KeyFailure(msl.ErrUnwrapError, "unwrap session keys", err, keystore.ErrBadData, keystore.ErrForeign, errors.ErrUnsupported)
	}
	return keys, nil
}

// keyMembers reads the two keys of a response.
func keyMembers(keydata []byte) (encryption, signature []byte, err error) {
	if encryption, err = binaryMember(keydata, "encryptionkey"); err != nil {
		return nil, nil, err
	}
	signature, err = binaryMember(keydata, "hmackey")
	return encryption, signature, err
}

// binaryMember reads bytes out of a key data object.
func binaryMember(keydata []byte, name string) ([]byte, error) {
	o, err := wire.Parse(keydata, wire.Limits{})
	if err != nil {
		return nil, parseFailure(err)
	}
	b, err := o.Bytes(name)
	if err != nil {
		return nil, parseFailure(err)
	}
	return b, nil
}

// member reads a string out of a key data object.
func member(keydata []byte, name string) (string, error) {
	o, err := wire.Parse(keydata, wire.Limits{})
	if err != nil {
		return "", parseFailure(err)
	}
	s, err := o.String(name)
	if err != nil {
		return "", parseFailure(err)
	}
	return s, nil
}

func parseFailure(err error) error { return msl.Failure(msl.ErrMSLParseError, "key data", err) }
