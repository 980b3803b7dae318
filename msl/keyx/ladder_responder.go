package keyx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A LadderForm is how a ladder wraps its keys.
type LadderForm string

// The schemes of [LadderResponder] and [LadderOfferer].
const (
	JWELadder LadderForm = "JWE_LADDER" // a JWK in a JWE
	JWKLadder LadderForm = "JWK_LADDER" // AES Key Wrap on a JWK
)

// LadderResponder is the responder of the schemes JWE_LADDER and JWK_LADDER. With each
// exchange it gives the requester a new wrapping key, which wraps the session keys and
// the wrapping key of the next exchange, so that the pre-shared one is used once
// (mechanism PSK, then WRAP). The responder keeps nothing: the requester returns the
// wrapping key as wrapdata, which only the responder can open.
//
// Both sides see the keys, so custody must be imported or shared, and Store a
// keystore.Importer.
type LadderResponder struct {
	Form  LadderForm
	Store keystore.Store

	// Network is the name of the network, the same for all its servers. Networks that
	// share a key store need different names, so that none accepts another's wrapdata.
	Network string

	// PSK has the wrapping keys of peers, which must be keystore.DataWrapper.
	// Nil refuses the mechanism PSK.
	PSK *entityauth.PSK
	// Wrapping and Revealing are the issuer's wrapping key in shared custody: the
	// reference stacks can then read wrapdata. Otherwise the store seals it.
	Wrapping  keystore.DataWrapper
	Revealing keystore.Revealer

	Rand io.Reader // nil means crypto/rand
}

const (
	byPSK  = "PSK"
	byWrap = "WRAP"
)

// Scheme returns the name of the form.
func (x *LadderResponder) Scheme() string { return string(x.Form) }

// Exposes declares that the process sees the session keys.
func (*LadderResponder) Exposes() msl.Exposure { return inLadder() }

// inLadder is the declaration of either side: a JWK is text that contains the key.
func inLadder() msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "session keys and the next wrapping key travel in the text of a JSON Web Key"}
}

type ladderRequest struct {
	mechanism string
	wrapdata  []byte
}

func (x *LadderResponder) parse(keydata []byte) (r ladderRequest, err error) {
	f := wire.ParseFields(keydata)
	r.mechanism = f.String("mechanism")
	if err := malformed(f); err != nil {
		return r, err
	}
	switch r.mechanism {
	case byPSK:
	case byWrap:
		r.wrapdata = f.Bytes("wrapdata")
		if err = malformed(f); err == nil && len(r.wrapdata) == 0 {
			err = msl.Failure(msl.ErrKeyXWrappingKeyMissing, x.Scheme(), nil)
		}
	default:
		err = msl.Failure(msl.ErrUnidentifiedKeyXMechanism, x.Scheme(), nil)
	}
	return r, err
}

// Check refuses unknown mechanisms with error 7005, and empty wrapdata with 7013. Without
// pre-shared keys, the mechanism PSK is error 7006 of Respond.
func (x *LadderResponder) Check(keydata []byte) error {
	_, err := x.parse(keydata)
	return err
}

// Respond makes a wrapping key and session keys.
func (x *LadderResponder) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	r, err := x.parse(keydata)
	if err != nil {
		return nil, nil, err
	}
	parent, release, err := x.parent(ctx, from, r)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	step, err := x.drawStep()
	if err != nil {
		return nil, nil, err
	}
	defer step.kw.Close()
	response, err := x.climb(from, parent, step)
	if err != nil {
		step.raw.Close()
		return nil, nil, err
	}
	keys, err := from.Custody.Import(x.Store, step.raw)
	return keys, response, err
}

// parent finds the key that wraps the new wrapping key.
func (x *LadderResponder) parent(ctx context.Context, from msl.Requester, r ladderRequest) (keystore.DataWrapper, func(), error) {
	if r.mechanism == byPSK {
		if x.PSK == nil {
			return nil, nil, msl.Failure(msl.ErrUnsupportedKeyXMechanism, x.Scheme(), nil)
		}
		set, err := x.PSK.KeysOf(ctx, from.Identity)
		if err != nil {
			return nil, nil, err
		}
		w, ok := set.Wrapping.(keystore.DataWrapper)
		if !ok {
			set.Release()
			return nil, nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), nil)
		}
		return w, set.Release, nil
	}
	key, err := x.openWrapdata(from, r.wrapdata)
	if err != nil {
		return nil, nil, err
	}
	w, ok := key.(keystore.DataWrapper)
	if !ok {
		key.Close()
		return nil, nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), nil)
	}
	return w, func() { w.Close() }, nil
}

// ladderContext binds sealed wrapdata to the network and to the requester that it
// was made for.
func (x *LadderResponder) ladderContext(identity string) []byte {
	if x.Network == "" {
		return fmt.Appendf(nil, "msl ladder wrapping key\x00%s\x00%s", x.Form, identity)
	}
	return fmt.Appendf(nil, "msl ladder wrapping key of a network\x00%d %s\x00%s\x00%s", len(x.Network), x.Network, x.Form, identity)
}

func (x *LadderResponder) openWrapdata(from msl.Requester, wrapdata []byte) (keystore.Key, error) {
	if from.Custody != msl.CustodyShared {
		key, err := x.Store.Unseal(keystore.AESWrap128, wrapdata, x.ladderContext(from.Identity))
		if err != nil {
			return nil, msl.KeyFailure(msl.ErrKeyXWrappingKeyMissing, x.Scheme(), err, keystore.ErrForeign, errors.ErrUnsupported)
		}
		return key, nil
	}
	if x.Revealing == nil {
		return nil, msl.Failure(msl.ErrUnwrapNotSupported, x.Scheme(), errors.New("no issuer's wrapping key configured"))
	}
	if err := blocks(x.Scheme(), wrapdata); err != nil {
		return nil, err
	}
	if bytes.Equal(wrapdata, wrappedNothing()) {
		return nil, msl.Failure(msl.ErrKeyXWrappingKeyMissing, x.Scheme(), nil)
	}
	kw, err := moved(x.Revealing.Reveal(wrapdata))
	if err != nil {
		return nil, msl.KeyFailure(msl.ErrUnwrapError, x.Scheme(), err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	defer kw.Close()
	return x.Form.importWrapping(x.Store, keystore.AESWrap128, kw.Bytes())
}

func (f LadderForm) importWrapping(store keystore.Store, a keystore.Algorithm, kw []byte) (keystore.Key, error) {
	importer, ok := store.(keystore.Importer)
	if !ok {
		return nil, msl.Failure(msl.ErrKeyImportError, string(f), errors.ErrUnsupported)
	}
	key, err := importer.Import(a, kw)
	if err != nil {
		return nil, msl.KeyFailure(msl.ErrWrapKeyCreationFailure, string(f), err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	return key, nil
}

// A step is what a responder draws for one exchange.
type step struct {
	kid string // of the wrapping key
	kw  *lockedmem.Buffer
	raw *msl.RawKeys
}

func (x *LadderResponder) drawStep() (s step, err error) {
	s.kid = "wrapKeyId"
	random := orRandom(x.Rand)
	if x.Form == JWELadder { // a signed number, as in the reference stack
		var b [8]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return s, msl.Failure(msl.ErrInternalException, x.Scheme(), err)
		}
		s.kid = strconv.FormatInt(int64(binary.BigEndian.Uint64(b[:])), 10)
	}
	s.kw = lockedmem.New(keystore.AESWrap128.Size())
	if _, err = io.ReadFull(random, s.kw.Bytes()); err != nil {
		err = msl.Failure(msl.ErrInternalException, x.Scheme(), err)
	} else {
		s.raw, err = msl.DrawRawKeys(x.Rand)
	}
	if err != nil {
		s.kw.Close()
	}
	return s, err
}

// climb wraps the new wrapping key under parent and for this side's own later use, and
// the session keys under the new wrapping key.
func (x *LadderResponder) climb(from msl.Requester, parent keystore.DataWrapper, s step) ([]byte, error) {
	key, err := x.Form.importWrapping(x.Store, keystore.AESWrap128, s.kw.Bytes())
	if err != nil {
		return nil, err
	}
	defer key.Close()
	own, ok := key.(keystore.DataWrapper)
	if !ok {
		return nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), nil)
	}
	var failed error
	wrap := func(by keystore.DataWrapper, p purpose, kid string, key []byte) []byte {
		if failed != nil {
			return nil
		}
		var b []byte
		b, failed = x.wrap(by, p, kid, key)
		return b
	}
	e := wire.NewEncoder(2048)
	e.Begin()
	e.Bytes("wrapkey", wrap(parent, forWrapping, s.kid, s.kw.Bytes()))
	e.Bytes("encryptionkey", wrap(own, forEncryption, "", s.raw.Encryption()))
	e.Bytes("hmackey", wrap(own, forSignature, "", s.raw.Signature()))
	wrapdata, err := x.wrapdata(from, own, s.kw.Bytes())
	e.Bytes("wrapdata", wrapdata)
	e.End()
	if err := errors.Join(failed, err); err != nil {
		return nil, msl.KeyFailure(msl.ErrWrapError, x.Scheme(), err, errors.ErrUnsupported)
	}
	return e.Encoded(), nil
}

// wrapdata is the new wrapping key in the form that the peer will return.
func (x *LadderResponder) wrapdata(from msl.Requester, key keystore.Key, kw []byte) ([]byte, error) {
	if from.Custody != msl.CustodyShared {
		return x.Store.Seal(key, x.ladderContext(from.Identity))
	}
	if x.Wrapping == nil {
		return nil, fmt.Errorf("no issuer's wrapping key configured: %w", errors.ErrUnsupported)
	}
	return x.Wrapping.WrapData(kw)
}

// wrap wraps a key as a JWK.
func (x *LadderResponder) wrap(by keystore.DataWrapper, p purpose, kid string, key []byte) ([]byte, error) {
	form := p.withOps()
	if x.Form == JWELadder {
		form = p.withUse()
	}
	form.kid = kid
	text := form.text(key)
	defer text.Close()
	if x.Form == JWELadder {
		j, err := jweSuite{algKW, encGCM128}.seal(text.Bytes(), x.Rand, by.WrapData)
		return j.json(), err
	}
	padded := pad(text.Bytes())
	defer padded.Close()
	return by.WrapData(padded.Bytes())
}

// pad puts spaces after the opening brace, as AES Key Wrap requires a multiple of eight
// bytes.
func pad(text []byte) *lockedmem.Buffer {
	spaces := -len(text) & 7
	memory := lockedmem.New(len(text) + spaces)
	b := memory.Bytes()
	b[0] = text[0]
	copy(b[1:], "        "[:spaces])
	copy(b[1+spaces:], text[1:])
	return memory
}
