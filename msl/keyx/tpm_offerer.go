package keyx

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// TPMOfferer is the requester of the scheme TPM_IMPORT, with a TPM. See [TPMResponder].
type TPMOfferer struct {
	// Store is the TPM's store, which seals the session keys for a restart; nil ends the
	// session with the process.
	Store keystore.Store
	// Device is the TPM.
	Device TPMDevice
	// Outside is the store for the encryption key if the TPM has no AES: a
	// keystore.Importer. Nil imports both keys into the TPM. The session outlasts the
	// process if Outside is Store, which then seals both keys.
	Outside keystore.Store
}

// A TPMDevice makes keys for one exchange.
type TPMDevice interface {
	NewParent() (TPMParent, error)
	NewDecrypter() (TPMDecrypter, error)
}

// A TPMKey is a key that a TPMDevice made. Close removes it from the TPM.
type TPMKey interface {
	Public() []byte
	Certify(qualifying []byte) (attest, signature []byte, err error)
	io.Closer
}

// A TPMParent is a storage key. Keys imported under it outlive it.
type TPMParent interface {
	TPMKey
	Import(a keystore.Algorithm, d keystore.Duplicated) (keystore.Key, error)
}

// A TPMDecrypter is an RSA key that decrypts OAEP with SHA-1.
type TPMDecrypter interface {
	TPMKey
	DecryptOAEP(ciphertext []byte) ([]byte, error)
}

// Scheme returns TPM_IMPORT.
func (*TPMOfferer) Scheme() string { return tpmScheme }

// Exposes declares that the process sees the encryption key of a TPM without AES.
func (x *TPMOfferer) Exposes() msl.Exposure {
	if x.Outside != nil {
		return msl.Exposure{Bytes: true, Why: "the TPM has no AES: the encryption key is decrypted to the process, which uses it; the HMAC key is imported"}
	}
	return msl.Exposure{Why: "the TPM imports session keys as objects"}
}

// Offer makes a storage key and lets the attestation key certify it.
func (x *TPMOfferer) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	o := &tpmOffer{x: x, identity: from.Identity}
	err := o.make(from)
	if err != nil {
		o.Close()
		return nil, msl.Failure(msl.ErrGenerateKeyError, x.Scheme(), err)
	}
	return o, nil
}

type tpmOffer struct {
	x         *TPMOfferer
	parent    TPMParent
	decrypter TPMDecrypter // or nil
	identity  string
	keydata   []byte
}

func (o *tpmOffer) make(from msl.Requester) (err error) {
	if o.x.Device == nil {
		return errors.ErrUnsupported
	}
	if o.x.Outside != nil {
		if err := imports(o.x.Outside, o.x.Scheme()); err != nil {
			return err
		}
	}
	r := tpmRequest{time: from.Time.Unix()}
	if o.parent, err = o.x.Device.NewParent(); err != nil {
		return err
	}
	if r.storage, err = certify(o.parent, from, r.time); err != nil {
		return err
	}
	if o.x.Outside != nil {
		if o.decrypter, err = o.x.Device.NewDecrypter(); err != nil {
			return err
		}
		if r.oaep, err = certify(o.decrypter, from, r.time); err != nil {
			return err
		}
	}
	o.keydata = r.encode()
	return nil
}

func certify(k TPMKey, from msl.Requester, seconds int64) (c TPMCertified, err error) {
	c.Public = k.Public()
	c.Attest, c.Signature, err = k.Certify(qualifying(from, seconds, c.Public))
	return c, err
}

func (o *tpmOffer) KeyData() []byte { return o.keydata }

// Close removes the keys of the exchange from the TPM.
func (o *tpmOffer) Close() error {
	var err error
	if o.parent != nil {
		err = o.parent.Close()
	}
	if o.decrypter != nil {
		err = errors.Join(err, o.decrypter.Close())
	}
	return err
}

// Accept imports the session keys, and seals them for a restart if one store has both.
func (o *tpmOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	f := wire.ParseFields(keydata)
	if err := malformed(f); err != nil {
		return msl.Outcome{}, err
	}
	open := func(a keystore.Algorithm, _ []byte) (keystore.Key, error) {
		if a == keystore.AES128CBC {
			return o.encryption(f)
		}
		return o.imported(f, "hmackey", a)
	}
	keys, err := msl.UnwrapSessionKeys(nil, nil, open)
	if err != nil {
		return msl.Outcome{}, msl.Failure(msl.ErrUnwrapError, o.x.Scheme(), err)
	}
	outcome := msl.Outcome{Keys: keys}
	if o.x.Store != nil && (o.x.Outside == nil || o.x.Outside == o.x.Store) {
		if outcome.Keep, err = sealForRestart(o.x.Store, keys, o.identity); err != nil {
			keys.Release()
			return msl.Outcome{}, msl.Failure(msl.ErrInternalException, "seal session keys", err)
		}
	}
	return outcome, nil
}

// encryption is the AES key: in the TPM, or outside if that has no AES.
func (o *tpmOffer) encryption(f *wire.Fields) (keystore.Key, error) {
	if o.decrypter == nil {
		return o.imported(f, "encryptionkey", keystore.AES128CBC)
	}
	store, ok := o.x.Outside.(keystore.Importer)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	ciphertext := f.Bytes("encryptionkey")
	if err := f.Err(); err != nil {
		return nil, err
	}
	raw, err := moved(o.decrypter.DecryptOAEP(ciphertext))
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	return store.Import(keystore.AES128CBC, raw.Bytes())
}

func (o *tpmOffer) imported(f *wire.Fields, name string, a keystore.Algorithm) (keystore.Key, error) {
	inner := f.Fields(name)
	d := keystore.Duplicated{Public: inner.Bytes("public"), Duplicate: inner.Bytes("duplicate"), Seed: inner.Bytes("seed")}
	if err := inner.Err(); err != nil {
		return nil, err
	}
	k, err := o.parent.Import(a, d)
	if errors.Is(err, keystore.ErrWeakKey) { // the peer's data, not a key of this side
		err = fmt.Errorf("%w: %v", keystore.ErrBadData, err)
	}
	return k, err
}

// Resume restores the session keys that the TPM sealed.
func (x *TPMOfferer) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	if x.Store == nil {
		return nil, msl.Failure(msl.ErrKeyXPrivateKeyMissing, x.Scheme(), nil)
	}
	return resumeSealed(x.Store, keep)
}
