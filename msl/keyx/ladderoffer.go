package keyx

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// Offer asks for keys under the wrapping key of the last exchange, or where
// there is none under our pre-shared one.
func (x *Ladder) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	if err := imports(x.Store, x.Scheme()); err != nil {
		return nil, err
	}
	o := &ladderOffer{x: x, identity: from.Identity, mechanism: byPSK, parent: x.Own}
	if r, ok := x.held(from.Identity); ok {
		o.mechanism, o.parent, o.used = byWrap, r.key, r
	}
	if o.parent == nil {
		return nil, msl.Failure(msl.ErrKeyXWrappingKeyMissing, x.Scheme(), nil)
	}
	e := wire.NewEncoder(128)
	e.Begin()
	e.String("mechanism", o.mechanism)
	if o.mechanism == byWrap {
		e.Bytes("wrapdata", o.used.wrapdata)
	}
	e.End()
	o.keydata = e.Encoded()
	return o, nil
}

type ladderOffer struct {
	x         *Ladder
	identity  string
	mechanism string
	parent    keystore.Revealer
	used      rung // with mechanism WRAP
	keydata   []byte
	done      bool
}

func (o *ladderOffer) KeyData() []byte { return o.keydata }

// Close of an offer that was not answered falls back to the pre-shared key,
// where there is one: the responder may not know the wrapping key any more.
func (o *ladderOffer) Close() error {
	if !o.done && o.mechanism == byWrap && o.x.Own != nil {
		o.x.hold(o.identity, o.used, rung{})
	}
	o.done = true
	return nil
}

// Accept unwraps the new wrapping key, and with it the session keys.
func (o *ladderOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	x := o.x
	f := wire.ParseFields(keydata)
	next, err := o.climb(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	raw, err := x.sessionKeys(f, next.key)
	if err != nil {
		next.key.Close()
		return msl.Outcome{}, err
	}
	outcome, err := imported(x.Store, raw, o.identity)
	if err != nil {
		next.key.Close()
		return msl.Outcome{}, err
	}
	x.hold(o.identity, o.used, next)
	o.done = true
	return outcome, nil
}

// climb takes the new wrapping key into the store.
func (o *ladderOffer) climb(f *wire.Fields) (rung, error) {
	x := o.x
	wrapdata, wrapped := f.Bytes("wrapdata"), f.Bytes("wrapkey")
	if err := malformed(f); err != nil {
		return rung{}, err
	}
	bad := msl.ErrUnwrapError
	if o.mechanism == byWrap {
		bad = msl.ErrInvalidSymmetricKey
	}
	kw := lockedmem.New(forWrapping.size)
	defer kw.Close()
	if err := x.open(o.parent, bad, wrapped, forWrapping, kw.Bytes()); err != nil {
		return rung{}, err
	}
	key, err := x.importWrapping(keystore.AESReveal128, kw.Bytes())
	if err != nil {
		return rung{}, err
	}
	revealer, ok := key.(keystore.Revealer)
	if !ok {
		key.Close()
		return rung{}, msl.Failure(msl.ErrUnwrapNotSupported, x.Scheme(), nil)
	}
	return rung{wrapdata, revealer}, nil
}

func (x *Ladder) sessionKeys(f *wire.Fields, by keystore.Revealer) (*msl.RawKeys, error) {
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return nil, err
	}
	raw := msl.NewRawKeys()
	err = x.open(by, msl.ErrInvalidSymmetricKey, encryption, forEncryption, raw.Encryption())
	if err == nil {
		err = x.open(by, msl.ErrInvalidSymmetricKey, signature, forSignature, raw.Signature())
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return raw, nil
}

// open finds a key in its JWK. bad is the code of what does not unwrap: the
// reference stack has one for a key that it was given, and another for one that
// came out of an exchange.
func (x *Ladder) open(by keystore.Revealer, bad msl.Code, wrapped []byte, p purpose, room []byte) error {
	reveal := func(b []byte) ([]byte, error) {
		raw, err := by.Reveal(b)
		if err != nil {
			return nil, msl.KeyFailure(bad, x.Scheme(), err, keystore.ErrBadData, errors.ErrUnsupported)
		}
		return raw, nil
	}
	var text *lockedmem.Buffer
	var err error
	if x.Form == JWELadder {
		text, err = jweSuite{algKW, encGCM128}.open(wrapped, reveal)
	} else {
		text, err = moved(reveal(wrapped))
	}
	if err != nil {
		return err
	}
	defer text.Close()
	k, err := parseJWK(text.Bytes())
	if errors.Is(err, errNoJWK) {
		return msl.Failure(msl.ErrInvalidJWK, x.Scheme(), err)
	}
	if err != nil {
		return err
	}
	return k.key(p, room)
}

// Resume makes the session keys again.
func (x *Ladder) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return resumeSealed(x.Store, keep)
}
