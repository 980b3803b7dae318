package keyx

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// sealForRestart always locks the keys. If a store has no sealing keys, there is nothing
// to keep: the session ends with the process.
func sealForRestart(store keystore.Store, keys *msl.SessionKeys, identity string) ([]byte, error) {
	encryption, errE := store.Seal(keys.Encryption, clientContext("encryption", identity))
	signature, errS := store.Seal(keys.Signature, clientContext("signature", identity))
	err := errors.Join(errE, errS)
	if errors.Is(err, keystore.ErrNotFound) || errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := wire.NewEncoder(512)
	e.Begin()
	e.String("sealedfor", identity)
	e.Bytes("encryptionkey", encryption)
	e.Bytes("hmackey", signature)
	e.End()
	return e.Encoded(), nil
}

// clientContext binds a client's sealed session key to its use and its owner.
func clientContext(use, identity string) []byte {
	return append(append([]byte("msl client session\x00"+use), 0), identity...)
}

// An unsealer opens sealed session keys, in the role of a key pair.
type unsealer struct {
	store    keystore.Store
	identity string
}

func (u unsealer) Algorithm() keystore.Algorithm { return keystore.SealSession256 }
func (u unsealer) Close() error                  { return nil }

func (u unsealer) Unwrap(a keystore.Algorithm, blob []byte) (keystore.Key, error) {
	use := "encryption"
	if a == keystore.HMACSHA256 {
		use = "signature"
	}
	return u.store.Unseal(a, blob, clientContext(use, u.identity))
}

// resumeSealed restores session keys from what sealForRestart returned.
func resumeSealed(store keystore.Store, keep []byte) (*msl.SessionKeys, error) {
	return unseal(store, wire.ParseFields(keep))
}

func unseal(store keystore.Store, f *wire.Fields) (*msl.SessionKeys, error) {
	identity := f.String("sealedfor")
	return unwrapKeys(f, unsealer{store, identity})
}

// imported ends an exchange on the requesting side that saw the bytes of the session
// keys: they are imported into the store, and sealed for a restart.
func imported(store keystore.Store, raw *msl.RawKeys, identity string) (msl.Outcome, error) {
	keys, err := msl.CustodyImported.Import(store, raw)
	if err != nil {
		return msl.Outcome{}, err
	}
	keep, err := sealForRestart(store, keys, identity)
	if err != nil {
		keys.Release()
		return msl.Outcome{}, msl.Failure(msl.ErrInternalException, "seal session keys", err)
	}
	return msl.Outcome{Keys: keys, Keep: keep}, nil
}
