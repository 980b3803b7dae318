package keyx

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// LadderOfferer is the requester of the schemes JWE_LADDER and JWK_LADDER. Its wrapping
// key stays in its store until the process ends: after a restart the ladder begins again
// with the pre-shared key.
//
// Both sides see the keys, so custody must be imported or shared, and Store a
// keystore.Importer.
type LadderOfferer struct {
	Form  LadderForm
	Store keystore.Store
	Own   keystore.Revealer // this side's pre-shared wrapping key

	mu    sync.Mutex
	rungs map[string]rung // of this process's requesters, by identity
}

// A rung is what a requester keeps of one exchange for the next.
type rung struct {
	wrapdata []byte
	key      keystore.Revealer
}

// Scheme returns the name of the form.
func (x *LadderOfferer) Scheme() string { return string(x.Form) }

// Exposes declares that the process sees the session keys.
func (*LadderOfferer) Exposes() msl.Exposure { return inLadder() }

// Offer asks for keys under the wrapping key of the last exchange, or under the
// pre-shared one if there was none.
func (x *LadderOfferer) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
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
	x         *LadderOfferer
	identity  string
	mechanism string
	parent    keystore.Revealer
	used      rung // with mechanism WRAP
	keydata   []byte
	done      bool
}

func (o *ladderOffer) KeyData() []byte { return o.keydata }

// Close of an unanswered offer falls back to the pre-shared key, if there is one: the
// responder may no longer know the wrapping key.
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
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	next, err := o.climb(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	raw, err := x.sessionKeys(encryption, signature, next.key)
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

// climb imports the new wrapping key into the store.
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
	key, err := x.Form.importWrapping(x.Store, keystore.AESReveal128, kw.Bytes())
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

func (x *LadderOfferer) sessionKeys(encryption, signature []byte, by keystore.Revealer) (*msl.RawKeys, error) {
	raw := msl.NewRawKeys()
	err := x.open(by, msl.ErrInvalidSymmetricKey, encryption, forEncryption, raw.Encryption())
	if err == nil {
		err = x.open(by, msl.ErrInvalidSymmetricKey, signature, forSignature, raw.Signature())
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return raw, nil
}

// open finds a key in its JWK. bad is the code if that does not unwrap: the reference
// stack has one for a configured key, which also checks the length, and another for one
// from an exchange.
func (x *LadderOfferer) open(by keystore.Revealer, bad msl.Code, wrapped []byte, p purpose, room []byte) error {
	reveal := func(b []byte) ([]byte, error) {
		if err := blocks(x.Scheme(), b); err != nil && bad == msl.ErrUnwrapError {
			return nil, err
		}
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

// Resume restores the session keys.
func (x *LadderOfferer) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return resumeSealed(x.Store, keep)
}

// Close forgets the wrapping keys that this process's requesters hold.
func (x *LadderOfferer) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.rungs {
		r.key.Close()
	}
	x.rungs = nil
	return nil
}

// held returns the rung of a requester, if there is one.
func (x *LadderOfferer) held(identity string) (rung, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, ok := x.rungs[identity]
	return r, ok
}

// hold replaces the rung of a requester, or removes it if next has no key. It changes
// nothing if the current rung is not the expected one.
func (x *LadderOfferer) hold(identity string, expected, next rung) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old, ok := x.rungs[identity]
	if ok && !slices.Equal(old.wrapdata, expected.wrapdata) && next.key == nil {
		return
	}
	if ok {
		old.key.Close()
		delete(x.rungs, identity)
	}
	if next.key == nil {
		return
	}
	if x.rungs == nil {
		x.rungs = map[string]rung{}
	}
	x.rungs[identity] = next
}
