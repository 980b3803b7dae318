package keyx

import (
	"context"
	"crypto"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A decryptedOffer sends a public key, and receives session keys that the other half
// decrypts to the process.
type decryptedOffer struct {
	decryption
	pair     DecryptingPair
	fresh    bool
	id       string
	identity string
	keydata  []byte
}

// A decryption is where the schemes of such an offer differ.
type decryption struct {
	mechanism string
	padding   crypto.DecrypterOpts
	sessions  keystore.Store // a keystore.Importer
	open      func(f *wire.Fields, pair crypto.Decrypter) (*msl.RawKeys, error)
}

// offer makes an offer with a provisioned pair, or with a new one from pairs.
func (d decryption) offer(provisioned DecryptingPair, id string, pairs keystore.Store, fresh keystore.Algorithm, identity string) (msl.Offer, error) {
	o := &decryptedOffer{decryption: d, pair: provisioned, id: id, identity: identity}
	err := imports(d.sessions, "ASYMMETRIC_WRAPPED")
	if err != nil {
		return nil, err
	}
	if o.pair == nil {
		if o.pair, err = newPair[DecryptingPair](pairs, fresh, keystore.RSADecrypt2048, msl.ErrDecryptNotSupported); err != nil {
			return nil, err
		}
		o.fresh = true
	}
	if o.id == "" {
		o.id = "rsa"
	}
	if err = decrypts(o.pair, d.padding, "ASYMMETRIC_WRAPPED "+d.mechanism); err == nil {
		o.keydata, err = encodeAsymmetric(o.id, d.mechanism, o.pair.Public())
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func (o *decryptedOffer) KeyData() []byte { return o.keydata }

// Close destroys a pair made for this exchange.
func (o *decryptedOffer) Close() error {
	if !o.fresh {
		return nil
	}
	return o.pair.Close()
}

// Accept decrypts the session keys and imports them. They are sealed for a restart; if
// the store cannot do that, a provisioned pair opens the key data again.
func (o *decryptedOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	f := wire.ParseFields(keydata)
	if err := answers(f, o.id); err != nil {
		return msl.Outcome{}, err
	}
	raw, err := o.open(f, o.pair)
	if err != nil {
		return msl.Outcome{}, err
	}
	outcome, err := imported(o.sessions, raw, o.identity)
	if err == nil && outcome.Keep == nil && !o.fresh {
		outcome.Keep = keydata
	}
	return outcome, err
}

// resume restores the session keys.
func (d decryption) resume(keep []byte, provisioned DecryptingPair) (*msl.SessionKeys, error) {
	f := wire.ParseFields(keep)
	if f.Has("sealedfor") {
		return unseal(d.sessions, f)
	}
	if provisioned == nil {
		return nil, msl.Failure(msl.ErrKeyXPrivateKeyMissing, "ASYMMETRIC_WRAPPED", nil)
	}
	raw, err := d.open(f, provisioned)
	if err != nil {
		return nil, err
	}
	return msl.CustodyImported.Import(d.sessions, raw)
}
