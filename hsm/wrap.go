package hsm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type wrapKey struct{ *object }

// Wrap wraps with AES Key Wrap (RFC 3394).
func (k wrapKey) Wrap(other keystore.Key) ([]byte, error) {
	own, err := k.store.own(other)
	if err != nil {
		return nil, err
	}
	if err := own.leave(false); err != nil {
		return nil, err
	}
	if !own.algorithm.Secret() {
		return nil, fmt.Errorf("hsm: wrap a private key: %w", keystore.ErrWrongKey)
	}
	f, err := k.store.keyWrap()
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapKeyUnder(k.object, own, f)
	return wrapped, k.store.recovery.explain(err)
}

// wrapKey wraps one key under another.
func wrapKeyUnder(kek, own *object, f form) (out []byte, err error) {
	s := kek.store
	err = s.recovery.attempt(func() error {
		handle, epoch, err := own.acquire()
		if err != nil {
			return err
		}
		defer own.release()
		return kek.use(s.sessions, func(session, parent uint, now uint64) error {
			if epoch != now {
				return &Error{stale: true}
			}
			out, err = f.wrap(s.library, session, parent, handle, own.algorithm.Size())
			return err
		})
	}, nil, kek, own)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// exactly requires n == want: a shorter answer would leave zeros in the ciphertext.
func exactly(function string, n, want int, err error) error {
	if err == nil && n != want {
		return &Error{Function: function, garbage: fmt.Sprintf("%d bytes instead of %d", n, want)}
	}
	return err
}

// wrote requires that a module wrote all of out, which was cleared before and can never be
// zeros. Some answer CKR_OK and write nothing.
func wrote(function string, out []byte, n int, err error) error {
	err = exactly(function, n, len(out), err)
	if err == nil && !slices.ContainsFunc(out, func(c byte) bool { return c != 0 }) {
		return unwritten(function)
	}
	return err
}

func unwritten(function string) error {
	return &Error{Function: function, garbage: "CKR_OK without data"}
}

// WrapFor wraps k under a peer's RSA key with OAEP, SHA-1 and MGF1-SHA-1 (RFC
// 8017 section 7.1).
func (s *Store) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	public, ok := peer.(*rsa.PublicKey)
	if !ok || public == nil {
		return nil, fmt.Errorf("hsm: wrap for a public key %T: %w", peer, errors.ErrUnsupported)
	}
	if err := checkPeer(public); err != nil {
		return nil, err
	}
	if err := own.leave(false); err != nil {
		return nil, err
	}
	if !own.algorithm.Secret() {
		return nil, fmt.Errorf("hsm: wrap a private key: %w", keystore.ErrWrongKey)
	}
	out := make([]byte, public.Size())
	wrap := func(peer template) error {
		return own.use(s.sessions, func(session, handle uint, _ uint64) error {
			clear(out)
			n, err := s.wrapFor(session, peer, handle, out)
			return wrote("C_WrapKey", out, n, err)
		})
	}
	template := peerTemplate(public)
	this := func() error { return wrap(template) }
	another := func() error { return wrap(peerTemplate(anyPeer(public.Size()))) }
	if err := s.recovery.attempt(this, another, own); err != nil {
		return nil, s.recovery.badData("wrap for a peer", err)
	}
	return out, nil
}

// anyPeer returns a public key of that many bytes without a known private half.
func anyPeer(size int) *rsa.PublicKey {
	b := make([]byte, size)
	rand.Read(b)
	b[0], b[size-1] = b[0]|0x80, b[size-1]|1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
}

// checkPeer refuses public keys that are too weak, or too expensive to use.
func checkPeer(p *rsa.PublicKey) error {
	switch {
	case p.N == nil || p.N.Sign() <= 0 || p.N.BitLen() < 2048 || p.N.BitLen() > 8192:
		return fmt.Errorf("hsm: peer's RSA modulus must be 2048 to 8192 bits long: %w", keystore.ErrBadData)
	case p.N.Bit(0) == 0:
		return fmt.Errorf("hsm: peer's RSA modulus is even: %w", keystore.ErrBadData)
	case p.E < 3 || p.E&1 == 0:
		return fmt.Errorf("hsm: peer's RSA exponent is even or below 3: %w", keystore.ErrBadData)
	}
	return nil
}

func peerTemplate(p *rsa.PublicKey) template {
	t := make(template, 0, 9*3*word+p.Size()).number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY).number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA)
	t = t.flags(false, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY)
	t = t.flag(pkcs11.CKA_WRAP, true).add(pkcs11.CKA_MODULUS, p.N.Bytes())
	return t.add(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(p.E)).Bytes())
}

type unwrapKey struct{ *object }

// A privateUnwrapKey is the private half of a pair.
type privateUnwrapKey struct{ unwrapKey }

// Public returns the *rsa.PublicKey to wrap for.
func (k privateUnwrapKey) Public() crypto.PublicKey { return k.public }

// Unwrap makes a session key from what a peer wrapped.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	s := k.store
	if err := k.usable(); err != nil {
		return nil, err
	}
	locked := k.label != ""
	f, err := s.keyWrap()
	size := a.Size() + f.grows
	if public, ok := k.public.(*rsa.PublicKey); ok {
		f, size, err = form{mechanism: pkcs11.CKM_RSA_PKCS_OAEP}, public.Size(), nil
	}
	if err != nil {
		return nil, err
	}
	switch _, known := s.births.templates[a]; {
	case !known:
		return nil, fmt.Errorf("hsm: unwrap %v: %w", a, errors.ErrUnsupported)
	case a == keystore.AESReveal128:
		return nil, fmt.Errorf("hsm: unwrap %v: a key that reveals is provisioned or imported: %w", a, errors.ErrUnsupported)
	case locked && (a == keystore.AESWrap128 || a == keystore.AESUnwrap128):
		return nil, fmt.Errorf("hsm: unwrap %v with a provisioned key: it could be made to decrypt recorded traffic: %w", a, errors.ErrUnsupported)
	case len(wrapped) != size:
		return nil, fmt.Errorf("hsm: unwrap %v: %w", a, keystore.ErrBadData)
	}
	made := &object{store: s, algorithm: a, locked: locked}
	var doubts []ref
	err = s.recovery.attempt(func() error {
		return s.births.unwrapKey(k.object, f, made, wrapped, &doubts)
	}, k.likeUnwrap(f, a), k.object)
	s.births.settle(doubts, err)
	if err != nil {
		return nil, s.recovery.badData("unwrap "+a.String(), err)
	}
	return made.typed(), nil
}

// likeUnwrap does what Unwrap does, with data known to be good: wrapped under the
// public half of the same key if it has one, and otherwise under a throwaway key.
func (k unwrapKey) likeUnwrap(f form, a keystore.Algorithm) func() error {
	public, ok := k.public.(*rsa.PublicKey)
	if !ok {
		return k.store.recovery.check
	}
	return func() error {
		raw := make([]byte, a.Size())
		rand.Read(raw)
		wrapped, err := oaeptrial.Encrypt(public, raw)
		if err != nil {
			return err
		}
		made := &object{store: k.store, algorithm: a, locked: k.label != ""}
		if err := k.store.births.unwrapKey(k.object, f, made, wrapped, new([]ref)); err != nil {
			return err
		}
		return made.Close()
	}
}
