package keyx

import (
	"cmp"
	"context"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// SymmetricResponder is the scheme SYMMETRIC_WRAPPED with key id PSK (MSL wiki,
// "Symmetric Wrapped Key Exchange"), on the side that wraps the session keys.
type SymmetricResponder struct {
	Store keystore.Store
	PSK   *entityauth.PSK // has the wrapping keys of peers
	Rand  io.Reader       // for session keys in shared custody; nil means crypto/rand
}

// SymmetricOfferer is the requester of SYMMETRIC_WRAPPED.
type SymmetricOfferer struct {
	Keys *entityauth.KeySet // of this side; its wrapping key unwraps the session keys
}

const (
	symmetricScheme = "SYMMETRIC_WRAPPED"
	pskKeyID        = "PSK"
)

// Scheme returns SYMMETRIC_WRAPPED.
func (*SymmetricResponder) Scheme() string { return symmetricScheme }

// Scheme returns SYMMETRIC_WRAPPED.
func (*SymmetricOfferer) Scheme() string { return symmetricScheme }

// Exposes declares nothing: the key store wraps.
func (*SymmetricResponder) Exposes() msl.Exposure { return inKeyStore() }

// Exposes declares nothing: the key store unwraps.
func (*SymmetricOfferer) Exposes() msl.Exposure { return inKeyStore() }

// keyID reads the key id of key data.
func keyID(f *wire.Fields) (string, error) {
	id := f.String("keyid")
	return id, malformed(f)
}

// known reports whether the protocol defines a key id.
func known(id string) bool { return id == pskKeyID || id == "SESSION" }

// Check refuses unknown key ids with error 7003. Without pre-shared keys, 7004 is the error
// of Respond.
func (x *SymmetricResponder) Check(keydata []byte) error {
	id, err := keyID(wire.ParseFields(keydata))
	if err != nil {
		return err
	}
	if !known(id) {
		return msl.Failure(msl.ErrUnidentifiedKeyXKeyID, x.Scheme(), nil)
	}
	return nil
}

// Respond wraps new session keys under the requester's pre-shared wrapping key.
func (x *SymmetricResponder) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	id, err := keyID(wire.ParseFields(keydata))
	if err != nil {
		return nil, nil, err
	}
	if id != pskKeyID { // no stack can wrap under session keys
		if from.Token == nil {
			return nil, nil, msl.Failure(msl.ErrKeyXMasterTokenMissing, x.Scheme(), nil)
		}
		return nil, nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), nil)
	}
	if x.PSK == nil {
		return nil, nil, msl.Failure(msl.ErrUnsupportedKeyXKeyID, x.Scheme(), nil)
	}
	set, err := x.PSK.KeysOf(ctx, from.Identity)
	if err != nil {
		return nil, nil, err
	}
	defer set.Release()
	wrapping, ok := set.Wrapping.(keystore.Wrapper)
	if !ok {
		return nil, nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), nil)
	}
	return respond(from.Custody, x.Store, x.Rand, wrapping.Wrap, func(e *wire.Encoder) { e.String("keyid", pskKeyID) })
}

// Offer asks for keys under this side's pre-shared wrapping key.
func (x *SymmetricOfferer) Offer(context.Context, msl.Requester) (msl.Offer, error) {
	if x.Keys == nil || x.Keys.Wrapping == nil {
		return nil, msl.Failure(msl.ErrUnsupportedKeyXKeyID, "own pre-shared wrapping key", nil)
	}
	if _, ok := x.Keys.Wrapping.(keystore.Unwrapper); !ok {
		return nil, unable(msl.ErrUnwrapNotSupported, x.Scheme(), "the pre-shared wrapping key does not unwrap")
	}
	e := wire.NewEncoder(32)
	e.Begin()
	e.String("keyid", pskKeyID)
	e.End()
	return &symmetricOffer{x, e.Encoded()}, nil
}

type symmetricOffer struct {
	x       *SymmetricOfferer
	keydata []byte
}

func (o *symmetricOffer) KeyData() []byte { return o.keydata }
func (o *symmetricOffer) Close() error    { return nil }

// Accept unwraps the session keys. The key data itself resumes them: only the device's
// own wrapping key opens it.
func (o *symmetricOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	f := wire.ParseFields(keydata)
	id, err := keyID(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	if !known(id) {
		return msl.Outcome{}, msl.Failure(msl.ErrUnidentifiedKeyXKeyID, o.x.Scheme(), nil)
	}
	if _, _, err := wrappedKeys(f); err != nil {
		return msl.Outcome{}, err
	}
	if id != pskKeyID {
		return msl.Outcome{}, msl.Failure(msl.ErrKeyXResponseRequestMismatch, o.x.Scheme(), nil)
	}
	keys, err := o.x.unwrap(f)
	return msl.Outcome{Keys: keys, Keep: keydata}, err
}

// Resume unwraps the session keys of key response data.
func (x *SymmetricOfferer) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return x.unwrap(wire.ParseFields(keep))
}

func (x *SymmetricOfferer) unwrap(f *wire.Fields) (*msl.SessionKeys, error) {
	if x.Keys == nil {
		return nil, msl.Failure(msl.ErrKeyXWrappingKeyMissing, x.Scheme(), nil)
	}
	unwrapping, ok := x.Keys.Wrapping.(keystore.Unwrapper)
	if !ok {
		return nil, msl.Failure(msl.ErrUnwrapNotSupported, x.Scheme(), nil)
	}
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(blocks(x.Scheme(), encryption), blocks(x.Scheme(), signature)); err != nil {
		return nil, err
	}
	return unwrapKeys(f, unwrapping)
}
