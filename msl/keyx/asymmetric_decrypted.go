package keyx

import (
	"context"
	"crypto"
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// AsymmetricDecrypted is a requester for [AsymmetricWrapped] whose device cannot unwrap:
// its RSA key decrypts to the process, as a TPM 2.0 does (TPM2_RSA_Decrypt). A server
// does not notice the difference.
type AsymmetricDecrypted struct {
	// Pairs makes a key pair for each exchange, keystore.RSADecrypt2048.
	Pairs keystore.Store
	// KeyPair is a provisioned pair to use instead of new ones, and ID its name
	// on the wire.
	KeyPair DecryptingPair
	ID      string
	// Sessions is the store for the session keys, a keystore.Importer.
	Sessions keystore.Store
}

// Scheme returns ASYMMETRIC_WRAPPED.
func (*AsymmetricDecrypted) Scheme() string { return "ASYMMETRIC_WRAPPED" }

// Exposes declares that the process sees the session keys.
func (*AsymmetricDecrypted) Exposes() msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "the device decrypts wrapped session keys to the process"}
}

// Offer sends this side's public key.
func (x *AsymmetricDecrypted) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	return x.decryption().offer(x.KeyPair, x.ID, x.Pairs, 0, from.Identity)
}

// Resume restores the session keys.
func (x *AsymmetricDecrypted) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return x.decryption().resume(keep, x.KeyPair)
}

func (x *AsymmetricDecrypted) decryption() decryption {
	return decryption{rsaMechanism, oaepSHA1, x.Sessions, x.open}
}

func (x *AsymmetricDecrypted) open(f *wire.Fields, pair crypto.Decrypter) (*msl.RawKeys, error) {
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return nil, err
	}
	raw := msl.NewRawKeys()
	err = x.decrypt(pair, encryption, raw.Encryption())
	if err == nil {
		err = x.decrypt(pair, signature, raw.Signature())
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return raw, nil
}

func (x *AsymmetricDecrypted) decrypt(pair crypto.Decrypter, wrapped, room []byte) error {
	key, err := moved(pair.Decrypt(nil, wrapped, oaepSHA1))
	if err != nil {
		return msl.KeyFailure(msl.ErrUnwrapError, x.Scheme(), err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	defer key.Close()
	if len(key.Bytes()) != len(room) {
		return msl.Failure(msl.ErrUnwrapError, x.Scheme(), keystore.ErrBadData)
	}
	copy(room, key.Bytes())
	return nil
}
