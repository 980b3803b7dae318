package hsm

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A version is one version of a provisioned key, as it was found.
type version struct {
	label     string
	number    uint32
	algorithm keystore.Algorithm
	public    crypto.PublicKey
	handle    uint
	epoch     uint64
}

// rings remembers the provisioned keys by label, newest version first: to find
// an object takes long in a full token, and to prove it longer. It is locked
// while token objects are looked for or made, which some modules cannot do at
// the same time.
type rings struct {
	mu     sync.Mutex
	labels map[string][]version
}

// Lookup finds a provisioned key, and refuses one that is not protected as its
// algorithm asks for.
func (s *Store) Lookup(label string) ([]keystore.Version, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	ring, err := s.ring(label)
	if err != nil {
		return nil, s.explain(err)
	}
	var all []keystore.Version
	for _, v := range ring {
		all = append(all, keystore.Version{Number: v.number, Key: s.provisioned(v).typed()})
	}
	return all, nil
}

// provisioned makes a handle of its own on a provisioned key.
func (s *Store) provisioned(v version) *object {
	return &object{
		store: s, algorithm: v.algorithm, public: v.public, label: v.label, version: v.number,
		handle: v.handle, epoch: v.epoch, locked: true,
	}
}

// ring returns every version of a provisioned key, newest first.
func (s *Store) ring(label string) ([]version, error) {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	ring, known := s.rings.labels[label]
	if known && ring[0].epoch == s.epoch.Load() {
		return ring, nil
	}
	err := s.attempt(func() error {
		return s.on(s.sessions, 0, func(session uint) (err error) {
			ring, err = s.load(session, label)
			if known && errors.Is(err, keystore.ErrNotFound) && s.isEmpty(session) {
				// Some modules say so when the token went away.
				err = &Error{Function: "C_FindObjects", Code: pkcs11.CKR_TOKEN_NOT_PRESENT}
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if s.rings.labels == nil {
		s.rings.labels = map[string][]version{}
	}
	s.rings.labels[label] = ring
	return ring, nil
}

// findVersion finds a provisioned key again.
func (s *Store) findVersion(label string, number uint32) (version, error) {
	ring, err := s.ring(label)
	if err != nil {
		return version{}, err
	}
	for _, v := range ring {
		if v.number == number {
			return v, nil
		}
	}
	return version{}, noVersion(label, number)
}

func noVersion(label string, number uint32) error {
	return fmt.Errorf("hsm: key %q version %d: %w", label, number, keystore.ErrNotFound)
}

// isEmpty reports whether the token shows no object at all.
func (s *Store) isEmpty(session uint) bool {
	all, err := s.find(session, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true))
	return err == nil && len(all) == 0
}

// forgetLabel drops what is known of a key, because it changes.
func (s *Store) forgetLabel(label string) {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	delete(s.rings.labels, label)
}

// outdate drops the handles of a key that should still be there.
func (s *Store) outdate(label string) {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	if ring, known := s.rings.labels[label]; known {
		ring = slices.Clone(ring)
		ring[0].epoch = 0
		s.rings.labels[label] = ring
	}
}

// load finds the versions of a key and proves each.
func (s *Store) load(session uint, label string) ([]version, error) {
	all, err := s.labelled(session, label)
	if err != nil {
		return nil, err
	}
	var ring []version
	for _, e := range all {
		if weak := s.notAllowed(e.Weaknesses); len(weak) > 0 {
			return nil, fmt.Errorf("hsm: key %q version %d: %w: %s", label, e.Version, keystore.ErrWeakKey, strings.Join(weak, "; "))
		}
		v := version{label: label, number: e.Version, algorithm: e.Algorithm, handle: e.handle, epoch: s.epoch.Load()}
		if !e.Algorithm.Secret() {
			if v.public, err = s.publicHalf(session, e); err != nil {
				return nil, err
			}
		}
		ring = append(ring, v)
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("hsm: key %q: %w", label, keystore.ErrNotFound)
	}
	slices.SortFunc(ring, func(a, b version) int { return cmp.Compare(b.number, a.number) })
	for i := range ring[1:] {
		if ring[i].number == ring[i+1].number {
			return nil, fmt.Errorf("hsm: two keys are labelled %q and have version %d: %w; remove one of them", label, ring[i].number, keystore.ErrExists)
		}
	}
	return ring, nil
}

// labelled examines the secret and private keys with a label.
func (s *Store) labelled(session uint, label string) ([]evidence, error) {
	var all []evidence
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY} {
		handles, err := s.find(session, pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
		if err != nil {
			return nil, err
		}
		for _, h := range handles {
			all = append(all, s.examine(session, h, class))
		}
	}
	return all, nil
}

// publicHalf reads the public key of a pair: of RSA from the private key, which
// has it too, and of an EC key from the object beside it.
func (s *Store) publicHalf(session uint, e evidence) (crypto.PublicKey, error) {
	if e.keyType == pkcs11.CKK_RSA {
		return s.publicRSA(session, e.handle)
	}
	halves, err := s.publicObjects(session, e.Label, e.id)
	if err != nil {
		return nil, err
	}
	if len(halves) == 0 {
		return nil, fmt.Errorf("hsm: key %q version %d has no public half in the token: %w", e.Label, e.Version, keystore.ErrNotFound)
	}
	return s.publicKey(session, halves[0], e.keyType)
}

func (s *Store) publicObjects(session uint, label string, id []byte) ([]uint, error) {
	return s.find(session, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id))
}

// versionOf reads the version out of an identifier. A key that was not made
// here has version 1.
func versionOf(label string, id []byte) uint32 {
	if len(id) == 12 && bytes.Equal(id[:8], keyID(label, 0)[:8]) {
		if n := binary.BigEndian.Uint32(id[8:]); n > 0 {
			return n
		}
	}
	return 1
}

// Create makes the next version of the provisioned key label in the token. The
// sealing algorithms go by one label each.
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	k, err := kindOf(a)
	if err != nil {
		return keystore.Version{}, err
	}
	return s.provision(label, a, func(session uint, name template, restrict bool) error {
		if !restrict {
			k.mechanisms = nil
		}
		if a.Secret() {
			t := append(k.secret(true, false).number(pkcs11.CKA_VALUE_LEN, uint(a.Size())), name...)
			_, err := s.generate(session, k.generate, k.fixed(t))
			return err
		}
		public, private := k.pair(a, true, name)
		_, _, err := s.generatePair(session, k.generate, public, private)
		return err
	})
}

// Provision makes the next version of a provisioned key from bytes that this
// process has seen, and List says so. The caller keeps raw and wipes it.
func (s *Store) Provision(label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	k, err := kindOf(a)
	switch {
	case err != nil || !a.Secret() || a.Sealing():
		return keystore.Version{}, fmt.Errorf("hsm: provision %v from bytes: %w", a, errors.ErrUnsupported)
	case len(raw) != a.Size():
		return keystore.Version{}, fmt.Errorf("hsm: provision %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	return s.provision(label, a, func(session uint, name template, restrict bool) error {
		if !restrict {
			k.mechanisms = nil
		}
		t := make(template, 0, 2048) // room, so that no copy of raw is left behind
		t = k.fixed(append(append(t, k.secret(true, false)...), name...).add(pkcs11.CKA_VALUE, raw))
		defer clear(t)
		_, err := s.create(session, t)
		return err
	})
}
