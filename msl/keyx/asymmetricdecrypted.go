package keyx

import (
	"context"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// AsymmetricDecrypted is the requester of [AsymmetricWrapped] whose device cannot
// unwrap: its RSA key decrypts to the process, as that of a TPM 2.0 does
// (TPM2_RSA_Decrypt). A server does not notice the difference.
type AsymmetricDecrypted struct {
	// Pairs makes a key pair for each exchange, keystore.RSADecrypt2048.
	Pairs keystore.Store
	// KeyPair is a provisioned pair in the place of new ones, and ID its name
	// on the wire.
	KeyPair DecryptingPair
	ID      string
	// Sessions is where the session keys go: a keystore.Importer.
	Sessions keystore.Store
}

// Scheme returns ASYMMETRIC_WRAPPED.
func (*AsymmetricDecrypted) Scheme() string { return "ASYMMETRIC_WRAPPED" }

// Exposes declares the requester.
func (*AsymmetricDecrypted) Exposes(msl.Side) msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "the device decrypts wrapped session keys to the process"}
}

// Check judges a request as [AsymmetricWrapped] does.
func (*AsymmetricDecrypted) Check(keydata []byte) error {
	_, err := parseAsymmetric(keydata, rsaMechanism)
	return err
}

// Respond is not for this type: a responder has an AsymmetricWrapped.
func (x *AsymmetricDecrypted) Respond(context.Context, msl.Requester, []byte) (*msl.SessionKeys, []byte, error) {
	return nil, nil, msl.Failure(msl.ErrKeyXFactoryNotFound, x.Scheme(), nil)
}

// Offer shows our public key.
func (x *AsymmetricDecrypted) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	pair, fresh := x.KeyPair, x.KeyPair == nil
	if fresh {
		var err error
		if pair, err = newPair[DecryptingPair](x.Pairs, 0, keystore.RSADecrypt2048, msl.ErrDecryptNotSupported); err != nil {
			return nil, err
		}
	}
	o := &decryptedOffer{x: x, pair: pair, fresh: fresh, id: x.ID, identity: from.Identity}
	if o.id == "" {
		o.id = "rsa"
	}
	var err error
	if o.keydata, err = encodeAsymmetric(o.id, rsaMechanism, pair.Public()); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

type decryptedOffer struct {
	x        *AsymmetricDecrypted
	pair     DecryptingPair
	fresh    bool
	id       string
	identity string
	keydata  []byte
}

func (o *decryptedOffer) KeyData() []byte { return o.keydata }

// Close destroys a pair that was made for this exchange.
func (o *decryptedOffer) Close() error {
	if !o.fresh {
		return nil
	}
	return o.pair.Close()
}

// Accept decrypts the session keys and imports them.
func (o *decryptedOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	id, err := member(keydata, "keypairid")
	if err != nil {
		return msl.Outcome{}, err
	}
	if id != o.id {
		return msl.Outcome{}, msl.Failure(msl.ErrKeyXResponseRequestMismatch, o.x.Scheme(), nil)
	}
	raw, err := o.x.open(keydata, o.pair)
	if err != nil {
		return msl.Outcome{}, err
	}
	outcome, err := imported(o.x.Sessions, raw, o.identity)
	if err == nil && outcome.Keep == nil && !o.fresh {
		outcome.Keep = keydata
	}
	return outcome, err
}

func (x *AsymmetricDecrypted) open(keydata []byte, pair DecryptingPair) (*msl.RawKeys, error) {
	encryption, signature, err := keyMembers(keydata)
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

func (x *AsymmetricDecrypted) decrypt(pair DecryptingPair, wrapped, room []byte) error {
	key, err := moved(pair.Decrypt(nil, wrapped, oaepSHA1))
	if err != nil {
		return msl.Failure(msl.ErrUnwrapError, x.Scheme(), err)
	}
	defer key.Close()
	if len(key.Bytes()) != len(room) {
		return msl.Failure(msl.ErrUnwrapError, x.Scheme(), keystore.ErrBadData)
	}
	copy(room, key.Bytes())
	return nil
}

// Resume makes the session keys again.
func (x *AsymmetricDecrypted) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	if _, err := member(keep, "sealedfor"); err == nil {
		return resumeSealed(x.Sessions, keep)
	}
	if x.KeyPair == nil {
		return nil, msl.Failure(msl.ErrKeyXPrivateKeyMissing, x.Scheme(), nil)
	}
	raw, err := x.open(keep, x.KeyPair)
	if err != nil {
		return nil, err
	}
	return msl.CustodyImported.Import(x.Sessions, raw)
}
