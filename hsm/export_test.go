package hsm

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Flaw is what CreateWeak leaves out.
type Flaw struct {
	Unwrapped []uint        // attributes missing in the UNWRAP_TEMPLATE
	Flags     map[uint]bool // attributes of the key itself that are inverted
}

// CreateWeak makes version 1 of a provisioned key as Create does, but with a flaw, and
// returns its handle.
func (s *Store) CreateWeak(label string, a keystore.Algorithm, f Flaw) (uint, error) {
	k, err := kindOf(a)
	if err != nil {
		return 0, err
	}
	missing := func(v flagValue) bool { return slices.Contains(f.Unwrapped, v.attribute) }
	k.unwrapped, k.pinned = slices.DeleteFunc(slices.Clone(k.unwrapped), missing), slices.DeleteFunc(slices.Clone(k.pinned), missing)
	k.mechanisms = nil
	name := template{}.named(label, keyID(label, 1))
	var handle uint
	err = s.on(s.anchors, 0, func(session uint, _ uint64) error {
		var m made
		var err error
		if a.Secret() {
			t := append(k.secret(true, false).number(pkcs11.CKA_VALUE_LEN, uint(a.Size())), name...)
			m, err = s.generate(session, k.generate, k.fixed(t).override(f.Flags))
		} else {
			public, private := k.pair(a, true, name)
			private = private.override(f.Flags)
			m, _, err = s.generatePair(session, k.generate, public, private)
		}
		handle = m.handle
		return err
	})
	s.rings.forgetLabel(label)
	return handle, err
}

// override changes flags of a template where they stand.
func (t template) override(flags map[uint]bool) template {
	for i := 0; i < len(t); {
		attribute, _ := number(t[i : i+word])
		n, _ := number(t[i+word : i+2*word])
		if value, is := flags[attribute]; is && n == 1 {
			t[i+2*word] = 0
			if value {
				t[i+2*word] = 1
			}
		}
		i += 2*word + (int(n)+7)&^7
	}
	return t
}

// Handle is the handle of a key in the token.
func Handle(k keystore.Key) uint {
	return k.(interface{ own() *object }).own().handle
}

// KEKHandle is the handle of a provisioned key.
func (s *Store) KEKHandle(label string) (uint, error) {
	v, err := s.rings.findVersion(label, 1)
	return v.handle, err
}

// Record begins to keep every buffer that crosses to the module and back. It must
// be called while nothing else uses the store. The function returns what was kept
// so far, and forgets it.
func (s *Store) Record() func() [][]byte {
	r := &tap{}
	s.seen = r
	return func() [][]byte {
		r.mu.Lock()
		defer r.mu.Unlock()
		all := r.all
		r.all = nil
		return all
	}
}

// PinnedBy returns the attributes that an older version did not require of objects
// unwrapped by a key of that algorithm.
func PinnedBy(a keystore.Algorithm) (attributes []uint) {
	k, _ := kindOf(a)
	for _, v := range k.pinned {
		if !slices.Contains(k.unwrapped, v) {
			attributes = append(attributes, v.attribute)
		}
	}
	return attributes
}

// ProbeDigest returns the probe's result for C_DigestKey, tried in a session.
func (s *Store) ProbeDigest(session uint) Check {
	p := &prober{inspector: s.inspector, templates: s.births.templates, session: session}
	p.digest(1)
	return p.report[0]
}

// Indigestible judges an answer of a function.
func Indigestible(function string, code uint) bool {
	return indigestible(&Error{Function: function, Code: code})
}

// ProvisionKeyPair makes the next version of a provisioned key of an RSA key that this
// process has, as a test wants it that knows what comes of the key. Config.AllowWeak has
// to allow an imported key.
func (s *Store) ProvisionKeyPair(label string, a keystore.Algorithm, key crypto.Signer) (keystore.Version, error) {
	private, ok := key.(*rsa.PrivateKey)
	k, err := kindOf(a)
	if err != nil || !ok {
		return keystore.Version{}, fmt.Errorf("hsm: provision %T as %v: %w", key, a, errors.ErrUnsupported)
	}
	t := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY).number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA)
	private.Precompute()
	for attribute, n := range map[uint]*big.Int{
		pkcs11.CKA_MODULUS: private.N, pkcs11.CKA_PUBLIC_EXPONENT: big.NewInt(int64(private.E)), pkcs11.CKA_PRIVATE_EXPONENT: private.D,
		pkcs11.CKA_PRIME_1: private.Primes[0], pkcs11.CKA_PRIME_2: private.Primes[1],
		pkcs11.CKA_EXPONENT_1: private.Precomputed.Dp, pkcs11.CKA_EXPONENT_2: private.Precomputed.Dq, pkcs11.CKA_COEFFICIENT: private.Precomputed.Qinv,
	} {
		t = t.add(attribute, n.Bytes())
	}
	v, err := s.provisioner.provision(label, a, func(session uint, name template, _ []uint) ([]uint, error) {
		_, half := k.pair(a, true, name)
		m, err := s.create(session, slices.Concat(t, half))
		return []uint{m.handle}, err
	})
	return v.keyIn(s), err
}

// Rest closes the sessions that no load has needed since the last call.
func (s *Store) Rest() { s.closeSurplus() }

// Without is a template of flags with the attributes, without some of them.
func Without(attributes, omit []uint) []uint {
	var left []uint
	for t := (template{}).flags(true, attributes...).add(7, make([]byte, 9)).without(append(omit, 7)); len(t) > 0; t = t[2*word+8:] {
		a, _ := number(t[:word])
		left = append(left, a)
	}
	return left
}

// Forms are the names of the mechanisms that seal.
func Forms() []string {
	var names []string
	for _, f := range forms() {
		names = append(names, MechanismName(f.mechanism))
	}
	return names
}

// TrustedWithout has the security officer make a trusted sealing key that lacks an attribute,
// as an object of a session, and returns its handle.
func (s *Store) TrustedWithout(a keystore.Algorithm, soPIN []byte, attribute uint) (handle uint, end func(), err error) {
	end, err = officer{s, soPIN}.run(func(session uint) error {
		k, err := s.kindOf(a)
		if err == nil {
			var m made
			m, err = s.generate(session, k.generate, k.seed(a).without([]uint{attribute}))
			handle = m.handle
		}
		return err
	})
	return handle, end, err
}

// WithPublic has a signing key tell another public key than its device has.
func WithPublic(k keystore.Key, public crypto.PublicKey) crypto.Signer {
	k.(interface{ own() *object }).own().public = public
	return k.(crypto.Signer)
}

// DoubtAnew lets a store check its token as if it had not done so of late.
func DoubtAnew(s *Store) { s.doubts = newDoubts() }

// SwapHandles has each of two keys have the handle of the other.
func SwapHandles(a, b keystore.Key) {
	one, other := a.(interface{ own() *object }).own(), b.(interface{ own() *object }).own()
	one.handle, other.handle = other.handle, one.handle
}

// ConfirmMarks confirms what was remembered of keys, as a store does in time.
func ConfirmMarks(s *Store) { s.rings.confirmMarks() }

// Recovering reports whether a store is opening its token again.
func Recovering(s *Store) bool {
	s.recovery.mu.Lock()
	defer s.recovery.mu.Unlock()
	return s.recovery.running != nil
}

// Twins are two places in a pool of which the first one has the handle of a session that is gone,
// which the module gave to that of the other place meanwhile.
type Twins struct {
	s          *Store
	one, other *session
}

// NewTwins makes twins. With old, the first one is of the module before it was initialized again.
func NewTwins(s *Store, old bool) (*Twins, error) {
	t := &Twins{s, s.sessions.pop(), s.sessions.pop()}
	now := s.life.Load()
	if err := errors.Join(s.fill(t.one, now), s.fill(t.other, now)); err != nil {
		return nil, err
	}
	if err := s.closeSession(t.one.handle); err != nil {
		return nil, err
	}
	t.one.handle = t.other.handle
	t.one.shown.Store(uint64(t.one.handle))
	if old {
		t.one.generation--
		t.one.origin.session.generation--
	}
	return t, nil
}

// Empty empties the first place, or the other one, and reports whether the session of the other one
// is still open.
func (t *Twins) Empty(first bool) bool {
	own := t.other
	if first {
		own = t.one
	}
	handle := own.handle
	t.s.empty(own)
	_, err := t.s.loggedIn(handle)
	return err == nil
}

// End gives the places back.
func (t *Twins) End() {
	t.s.sessions.put(t.one, true)
	t.s.sessions.put(t.other, true)
}
