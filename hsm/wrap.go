package hsm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

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
	wrapped, err := k.store.wrapKey(k.object, own)
	return wrapped, k.store.explain(err)
}

// wrapKey wraps one key under another.
func (s *Store) wrapKey(kek, own *object) ([]byte, error) {
	out := make([]byte, own.algorithm.Size()+8)
	err := s.attempt(func() error {
		handle, epoch, err := own.acquire()
		if err != nil {
			return err
		}
		defer own.release()
		return kek.use(s.sessions, func(session, parent uint, now uint64) error {
			if epoch != now {
				return &Error{stale: true}
			}
			n, err := s.wrap(session, ckmKeyWrap, parent, handle, out)
			return exactly("C_WrapKey", n, len(out), err)
		})
	}, nil, kek, own)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// exactly asks for an answer of the length that the mechanism gives: a shorter
// one would leave zeros where a ciphertext belongs.
func exactly(function string, n, want int, err error) error {
	if err == nil && n != want {
		return &Error{Function: function, garbage: fmt.Sprintf("%d bytes instead of %d", n, want)}
	}
	return err
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
	wrap := func(peer *rsa.PublicKey) func() error {
		template := peerTemplate(peer)
		return func() error {
			return own.use(s.sessions, func(session, handle uint, _ uint64) error {
				n, err := s.wrapFor(session, template, handle, out)
				return exactly("C_WrapKey", n, len(out), err)
			})
		}
	}
	if err := s.attempt(wrap(public), wrap(anyPeer(public.Size())), own); err != nil {
		return nil, s.badData("wrap for a peer", err)
	}
	return out, nil
}

// anyPeer is a public key of that many bytes that nobody has the private half of.
func anyPeer(size int) *rsa.PublicKey {
	b := make([]byte, size)
	rand.Read(b)
	b[0], b[size-1] = b[0]|0x80, b[size-1]|1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
}

// checkPeer refuses public keys that protect nothing, or cost too much.
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
	t := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY).number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA)
	t = t.flags(false, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY)
	t = t.flag(pkcs11.CKA_WRAP, true).add(pkcs11.CKA_MODULUS, p.N.Bytes())
	return t.add(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(p.E)).Bytes())
}

type unwrapKey struct{ *object }

// A privateUnwrapKey is the private half of a pair.
type privateUnwrapKey struct{ unwrapKey }

// Public returns the *rsa.PublicKey to wrap for.
func (k privateUnwrapKey) Public() crypto.PublicKey { return k.public }

// Unwrap makes a session key of what a peer wrapped.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	s := k.store
	if err := k.usable(); err != nil {
		return nil, err
	}
	locked := k.label != ""
	mechanism, size := uint(ckmKeyWrap), a.Size()+8
	if public, ok := k.public.(*rsa.PublicKey); ok {
		mechanism, size = pkcs11.CKM_RSA_PKCS_OAEP, public.Size()
	}
	switch _, known := s.templates[a]; {
	case !known:
		return nil, fmt.Errorf("hsm: unwrap %v: %w", a, errors.ErrUnsupported)
	case a == keystore.AESReveal128:
		return nil, fmt.Errorf("hsm: unwrap %v: a key that reveals is provisioned or imported: %w", a, errors.ErrUnsupported)
	case locked && (a == keystore.AESWrap128 || a == keystore.AESUnwrap128):
		return nil, fmt.Errorf("hsm: unwrap %v with a provisioned key: it could be made to open recorded traffic: %w", a, errors.ErrUnsupported)
	case len(wrapped) != size:
		return nil, fmt.Errorf("hsm: unwrap %v: %w", a, keystore.ErrBadData)
	}
	made := &object{store: s, algorithm: a, locked: locked}
	var doubts []ref
	err := s.attempt(func() error {
		return s.unwrapKey(k.object, mechanism, made, wrapped, &doubts)
	}, k.likeUnwrap(mechanism, a), k.object)
	s.settle(doubts, err)
	if err != nil {
		return nil, s.badData("unwrap "+a.String(), err)
	}
	return made.typed(), nil
}

// likeUnwrap does what Unwrap does with data known to be good: under the same key
// where its public half can make some, and otherwise under a key for the purpose.
func (k unwrapKey) likeUnwrap(mechanism uint, a keystore.Algorithm) func() error {
	public, ok := k.public.(*rsa.PublicKey)
	if !ok {
		return k.store.check
	}
	return func() error {
		raw := make([]byte, a.Size())
		rand.Read(raw)
		wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, raw, nil)
		if err != nil {
			return err
		}
		made := &object{store: k.store, algorithm: a, locked: k.label != ""}
		if err := k.store.unwrapKey(k.object, mechanism, made, wrapped, new([]ref)); err != nil {
			return err
		}
		return made.Close()
	}
}

// unwrapKey makes the session object of a key, with the attributes that it must
// have. It notes what it may have made when it fails.
func (s *Store) unwrapKey(kek *object, mechanism uint, own *object, wrapped []byte, doubts *[]ref) error {
	template := s.templates[own.algorithm].unwrap
	if own.locked {
		template = s.templates[own.algorithm].unseal
	}
	return kek.use(s.anchors, func(session, parent uint, epoch uint64) error {
		id := s.newID()
		m, err := s.unwrap(session, mechanism, parent, wrapped, template.identified(id))
		m.epoch, m.id, m.origin = epoch, id, s.originOf(session)
		if err = s.born(session, &m, own.algorithm, own.locked, err); err != nil {
			*doubts = doubt(*doubts, m.ref)
			return err
		}
		if mechanism == pkcs11.CKM_RSA_PKCS_OAEP {
			if err = s.measure(session, m, own.algorithm, own.locked, doubts); err != nil {
				s.count(m.ref, -1)
				s.discard(session, m.ref)
				return err
			}
		}
		own.ref = m.ref
		return nil
	})
}

// born checks a new session object, repairs it where the module did not keep to
// the template, and otherwise destroys it. err is that of its making.
func (s *Store) born(session uint, m *made, a keystore.Algorithm, locked bool, err error) error {
	own := m.ref
	if err == nil && (m.sensitive != 1 || locked && m.extractable != 0) {
		repair := template{}.flag(pkcs11.CKA_SENSITIVE, true)
		if locked {
			repair = repair.flag(pkcs11.CKA_EXTRACTABLE, false)
		}
		*m, err = s.set(session, own.handle, repair)
		m.ref = own
	}
	if err == nil && (m.sensitive != 1 || locked && m.extractable != 0) {
		err = fmt.Errorf("hsm: the token did not apply the protection asked for to a new key: %w", keystore.ErrWeakKey)
	}
	if err == nil {
		err = checkSize(*m, a)
	}
	if err != nil {
		s.discard(session, m.ref)
		return err
	}
	s.count(m.ref, 1)
	return nil
}

// checkSize refuses a key of another size, as far as the module tells.
func checkSize(m made, a keystore.Algorithm) error {
	if m.size > 0 && m.size != a.Size() {
		return fmt.Errorf("hsm: a key of %d bytes for %v: %w", m.size, a, keystore.ErrBadData)
	}
	return nil
}

// measure finds out the size of a key that came out of RSA-OAEP, where the
// module does not tell: of one that may leave by wrapping it, of another as far
// as the operation that it is for fails with a wrong one.
func (s *Store) measure(session uint, m made, a keystore.Algorithm, locked bool, doubts *[]ref) error {
	out := make([]byte, 80)
	switch {
	case m.size > 0:
		return nil
	case !locked:
		id := s.newID()
		ruler, err := s.generate(session, pkcs11.CKM_AES_KEY_GEN, s.templates[keystore.AESWrap128].generate.identified(id))
		n := 0
		if err == nil {
			n, err = s.wrap(session, ckmKeyWrap, ruler.handle, m.handle, out)
		}
		ruler.epoch, ruler.id, ruler.origin = m.epoch, id, m.origin
		if err != nil {
			*doubts = doubt(*doubts, ruler.ref)
		}
		s.discard(session, ruler.ref)
		switch {
		case err != nil:
			return err
		case n < 24 || n%8 != 0:
			return exactly("C_WrapKey", n, a.Size()+8, nil)
		case n != a.Size()+8:
			return fmt.Errorf("hsm: a key of %d bytes for %v: %w", n-8, a, keystore.ErrBadData)
		}
		return nil
	}
	// On another session: a failure may leave an operation active.
	return s.on(s.sessions, m.epoch, func(session uint, _ uint64) (err error) {
		switch a {
		case keystore.HMACSHA256, keystore.HMACSHA256Block:
			_, err = s.sign(session, m.handle, pkcs11.CKM_SHA256_HMAC, nil, out[:32])
		case keystore.AESCMAC128:
			_, err = s.sign(session, m.handle, pkcs11.CKM_AES_CMAC, nil, out[:16])
		default:
			_, err = s.encrypt(session, m.handle, pkcs11.CKM_AES_CBC, out[:16], out[16:32], out[32:48])
		}
		return err
	})
}
