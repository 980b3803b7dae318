package keyx

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A failingStore fails one of its operations.
type failingStore struct {
	*soft.Store
	op  string
	err error
}

func (s *failingStore) failure(op string) error {
	if s.op != op || s.err == nil {
		return nil
	}
	return fmt.Errorf("fault: %w", s.err)
}

func (s *failingStore) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if err := s.failure("generate"); err != nil {
		return nil, err
	}
	return s.Store.Generate(a)
}

func (s *failingStore) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if err := s.failure("import"); err != nil {
		return nil, err
	}
	return s.Store.Import(a, raw)
}

func (s *failingStore) Seal(k keystore.Key, context []byte) ([]byte, error) {
	if err := s.failure("seal"); err != nil {
		return nil, err
	}
	return s.Store.Seal(k, context)
}

func (s *failingStore) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	if err := s.failure("unseal"); err != nil {
		return nil, err
	}
	return s.Store.Unseal(a, blob, context)
}

func (s *failingStore) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	if err := s.failure("wrap for"); err != nil {
		return nil, err
	}
	return s.Store.WrapFor(peer, k)
}

// A failingPair decrypts, or unwraps, nothing.
type failingPair struct {
	DecryptingPair
	err error
}

func (p failingPair) Decrypt(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
	return nil, fmt.Errorf("fault: %w", p.err)
}

func (p failingPair) Unwrap(keystore.Algorithm, []byte) (keystore.Key, error) {
	return nil, fmt.Errorf("fault: %w", p.err)
}

var keyStoreErrors = []error{keystore.ErrNotFound, keystore.ErrBusy, keystore.ErrClosed, keystore.ErrUnavailable, keystore.ErrPIN, keystore.ErrLost,
	keystore.ErrLocked, keystore.ErrForeign, keystore.ErrBadData, keystore.ErrWrongKey, keystore.ErrWeakKey, keystore.ErrExists, errors.New("CKR_VENDOR_DEFINED")}

// A store's error about the keys of a responder is internal, unless it is about the
// requester's data.
func TestKeyFailures(t *testing.T) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	var v keyxVectors
	readVectors(t, "spec/keyx.json", &v)
	store := &failingStore{Store: newStore(t)}
	psk := pskOf(t, store.Store, v)
	device := newStore(t)
	asymmetric, err := (&AsymmetricWrapped{Store: device}).Offer(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer asymmetric.Close()
	respond := func(x msl.Responder, keydata []byte) func() error {
		return func() error {
			keys, _, err := x.Respond(ctx, from, keydata)
			keys.Release()
			return err
		}
	}
	ladder := &LadderResponder{Form: JWKLadder, Store: store, PSK: psk}
	_, response, err := ladder.Respond(ctx, from, []byte(`{"mechanism":"PSK"}`))
	if err != nil {
		t.Fatal(err)
	}
	wrapdata, _ := bytesOf(response, "wrapdata")
	jose := &AsymmetricJOSE{Mechanism: JWERSA, Store: store}
	offer, err := jose.Offer(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer offer.Close()
	for _, c := range []struct {
		what, op string
		do       func() error
		about    map[error]msl.Code
	}{
		{"ASYMMETRIC_WRAPPED", "generate", respond(&AsymmetricWrapped{Store: store}, asymmetric.KeyData()), nil},
		{"ASYMMETRIC_WRAPPED", "wrap for", respond(&AsymmetricWrapped{Store: store}, asymmetric.KeyData()), map[error]msl.Code{keystore.ErrBadData: msl.ErrWrapError}},
		{"SYMMETRIC_WRAPPED", "generate", respond(&SymmetricResponder{Store: store, PSK: psk}, []byte(`{"keyid":"PSK"}`)), nil},
		{"JWK_LADDER", "seal", respond(ladder, []byte(`{"mechanism":"PSK"}`)), nil},
		{"JWK_LADDER", "import", respond(ladder, []byte(`{"mechanism":"PSK"}`)), map[error]msl.Code{keystore.ErrBadData: msl.ErrWrapKeyCreationFailure}},
		{"JWK_LADDER", "unseal", respond(ladder, wrapRequest(wrapdata)), map[error]msl.Code{keystore.ErrForeign: msl.ErrKeyXWrappingKeyMissing}},
		{"JWE_RSA", "import", respond(jose, offer.KeyData()), map[error]msl.Code{keystore.ErrBadData: msl.ErrSessionKeyCreationFailure}},
	} {
		for _, store.err = range keyStoreErrors {
			store.op = c.op
			checkVerdict(t, c.what+", "+c.op, store.err, c.do(), c.about)
		}
		store.op = ""
	}
}

// A requester, too, tells what it was sent from what its own keys do.
func TestRequesterKeyFailures(t *testing.T) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	for _, m := range joseMechanisms {
		device := newStore(t)
		x := &AsymmetricJOSE{Mechanism: m, Store: device}
		offer, err := x.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		keys, response, err := (&AsymmetricJOSE{Mechanism: m, Store: newStore(t)}).Respond(ctx, from, offer.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		keys.Release()
		o := offer.(*decryptedOffer)
		pair := o.pair
		for _, failure := range keyStoreErrors {
			o.pair = failingPair{pair, failure}
			_, err := o.Accept(ctx, response)
			checkVerdict(t, string(m), failure, err, map[error]msl.Code{keystore.ErrBadData: msl.ErrUnwrapError})
		}
		o.pair = pair
		offer.Close()
	}
}

func checkVerdict(t *testing.T, what string, failure, err error, about map[error]msl.Code) {
	t.Helper()
	want := msl.ErrInternalException
	if code, ok := about[failure]; ok {
		want = code
	}
	var e *msl.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s, %v: %v, want %v", what, failure, err, want)
	}
}
