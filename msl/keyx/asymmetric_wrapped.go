package keyx

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// AsymmetricWrapped is the scheme ASYMMETRIC_WRAPPED with mechanism RSA (MSL
// wiki, "Asymmetric Wrapped Key Exchange"): RSA-OAEP with SHA-1.
//
// It serves both sides; a responder needs only the store.
type AsymmetricWrapped struct {
	Store keystore.Store

	// KeyPair is a requester's provisioned key pair, and ID its name on the
	// wire. Nil makes a new pair for each exchange, which gives forward secrecy.
	KeyPair UnwrappingPair
	ID      string
	// Fresh is the algorithm of new pairs; zero means keystore.RSAUnwrap2048.
	Fresh keystore.Algorithm
	// Rand is for session keys that a responder draws in shared custody; nil means
	// crypto/rand.
	Rand io.Reader
}

// An UnwrappingPair is an RSA key pair that unwraps.
type UnwrappingPair interface {
	keystore.Unwrapper
	Public() crypto.PublicKey
}

const rsaMechanism = "RSA"

var mechanisms = []string{rsaMechanism, "ECC", "JWE_RSA", "JWEJS_RSA", "JWK_RSA", "JWK_RSAES"}

// Scheme returns ASYMMETRIC_WRAPPED.
func (*AsymmetricWrapped) Scheme() string { return "ASYMMETRIC_WRAPPED" }

// Exposes declares nothing: the key store wraps and unwraps.
func (*AsymmetricWrapped) Exposes() msl.Exposure {
	return inKeyStore()
}

type asymmetricRequest struct {
	id  string
	key *rsa.PublicKey
}

// parseAsymmetric reads a request with the configured mechanism.
func parseAsymmetric(keydata []byte, configured string) (r asymmetricRequest, err error) {
	f := wire.ParseFields(keydata)
	r.id = f.String("keypairid")
	mechanism := f.String("mechanism")
	if err := malformed(f); err != nil {
		return r, err
	}
	if !slices.Contains(mechanisms, mechanism) {
		return r, msl.Failure(msl.ErrUnidentifiedKeyXMechanism, "ASYMMETRIC_WRAPPED", nil)
	}
	der := f.Bytes("publickey")
	if err := malformed(f); err != nil {
		return r, err
	}
	if mechanism != configured {
		return r, msl.Failure(msl.ErrUnsupportedKeyXMechanism, "ASYMMETRIC_WRAPPED", nil)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return r, msl.Failure(msl.ErrInvalidPublicKey, "ASYMMETRIC_WRAPPED", err)
	}
	var ok bool
	if r.key, ok = key.(*rsa.PublicKey); !ok {
		return r, msl.Failure(msl.ErrInvalidPublicKey, "ASYMMETRIC_WRAPPED", errors.New("not an RSA key"))
	}
	// The limits that key stores set for a peer's key, before session keys are made: less
	// protects nothing, more costs too much.
	if bits := r.key.N.BitLen(); bits < 2048 || bits > 8192 || r.key.N.Bit(0) == 0 || r.key.E < 3 || r.key.E%2 == 0 {
		return r, msl.Failure(msl.ErrInvalidPublicKey, "ASYMMETRIC_WRAPPED", errors.New("RSA key must be 2048 to 8192 bits long"))
	}
	return r, nil
}

// Check refuses unknown mechanisms with error 7005, unconfigured ones with 7006, and an
// invalid public key with 3.
func (*AsymmetricWrapped) Check(keydata []byte) error {
	_, err := parseAsymmetric(keydata, rsaMechanism)
	return err
}

// Respond wraps new session keys under the requester's public key.
func (x *AsymmetricWrapped) Respond(_ context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	request, err := parseAsymmetric(keydata, rsaMechanism)
	if err != nil {
		return nil, nil, err
	}
	store, ok := x.Store.(keystore.PeerWrapper)
	if !ok {
		return nil, nil, msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), errors.ErrUnsupported)
	}
	wrap := func(k keystore.Key) ([]byte, error) {
		wrapped, err := store.WrapFor(request.key, k)
		if errors.Is(err, keystore.ErrBadData) {
			return nil, msl.Failure(msl.ErrInvalidPublicKey, x.Scheme(), err)
		}
		return wrapped, err
	}
	return respond(from.Custody, x.Store, x.Rand, wrap, func(e *wire.Encoder) { e.String("keypairid", request.id) })
}

// Offer sends this side's public key.
func (x *AsymmetricWrapped) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	o := &asymmetricOffer{x: x, pair: x.KeyPair, id: x.ID, identity: from.Identity}
	if o.pair == nil {
		pair, err := newPair[UnwrappingPair](x.Store, x.Fresh, keystore.RSAUnwrap2048, msl.ErrUnwrapNotSupported)
		if err != nil {
			return nil, err
		}
		o.pair, o.fresh = pair, true
	}
	if o.id == "" {
		o.id = "rsa"
	}
	if _, ok := o.pair.Public().(*rsa.PublicKey); !ok {
		o.Close()
		return nil, unable(msl.ErrInvalidPublicKey, x.Scheme(), "the key pair is not RSA")
	}
	var err error
	if o.keydata, err = encodeAsymmetric(o.id, rsaMechanism, o.pair.Public()); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// encodeAsymmetric writes a request.
func encodeAsymmetric(id, mechanism string, public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, msl.Failure(msl.ErrInvalidPublicKey, "ASYMMETRIC_WRAPPED", err)
	}
	e := wire.NewEncoder(512)
	e.Begin()
	e.String("keypairid", id)
	e.String("mechanism", mechanism)
	e.Bytes("publickey", der)
	e.End()
	return e.Encoded(), nil
}

// newPair makes a key pair for one exchange, of an algorithm, or of usual if that is
// zero. An unsuitable pair is refused.
func newPair[P any](store keystore.Store, a, usual keystore.Algorithm, refused msl.Code) (pair P, err error) {
	if a == 0 {
		a = usual
	}
	key, err := store.Generate(a)
	if err != nil {
		return pair, msl.KeyFailure(msl.ErrGenerateKeyError, "ASYMMETRIC_WRAPPED", err, errors.ErrUnsupported)
	}
	pair, ok := key.(P)
	if !ok {
		key.Close()
		return pair, msl.Failure(refused, "ASYMMETRIC_WRAPPED", errors.ErrUnsupported)
	}
	return pair, nil
}

type asymmetricOffer struct {
	x        *AsymmetricWrapped
	pair     UnwrappingPair
	fresh    bool
	id       string
	identity string
	keydata  []byte
}

func (o *asymmetricOffer) KeyData() []byte { return o.keydata }

// Close destroys a pair made for this exchange.
func (o *asymmetricOffer) Close() error {
	if !o.fresh {
		return nil
	}
	return o.pair.Close()
}

// Accept unwraps the session keys. A provisioned pair opens the key data again after a
// restart; with a new pair, the keys are sealed for it.
func (o *asymmetricOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	f := wire.ParseFields(keydata)
	if err := answers(f, o.id); err != nil {
		return msl.Outcome{}, err
	}
	keys, err := unwrapKeys(f, o.pair)
	if err != nil {
		return msl.Outcome{}, err
	}
	outcome := msl.Outcome{Keys: keys, Keep: keydata}
	if o.fresh {
		if outcome.Keep, err = sealForRestart(o.x.Store, keys, o.identity); err != nil {
			keys.Release()
			return msl.Outcome{}, msl.Failure(msl.ErrInternalException, "seal session keys", err)
		}
	}
	return outcome, nil
}

// answers refuses a response of another form, or to a request with another id.
func answers(f *wire.Fields, id string) error {
	answered := f.String("keypairid")
	if _, _, err := wrappedKeys(f); err != nil {
		return err
	}
	if answered != id {
		return msl.Failure(msl.ErrKeyXResponseRequestMismatch, "ASYMMETRIC_WRAPPED", nil)
	}
	return nil
}

// Resume restores the session keys.
func (x *AsymmetricWrapped) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	f := wire.ParseFields(keep)
	if f.Has("sealedfor") {
		return unseal(x.Store, f)
	}
	if x.KeyPair == nil {
		return nil, msl.Failure(msl.ErrKeyXPrivateKeyMissing, x.Scheme(), nil)
	}
	return unwrapKeys(f, x.KeyPair)
}
