package soft

import (
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A record is one version of a provisioned key.
type record struct {
	Label     string
	Version   uint32
	Algorithm keystore.Algorithm
	Local     bool // made here, not given

	m *material
}

func (r record) wrap(raw []byte) ([]byte, error) {
	r.m.mu.RLock()
	defer r.m.mu.RUnlock()
	if r.m.wiped {
		return nil, errStoreClosed()
	}
	return wrap(r.m.block, raw)
}

func (r record) unwrap(wrapped []byte) ([]byte, error) {
	r.m.mu.RLock()
	defer r.m.mu.RUnlock()
	if r.m.wiped {
		return nil, errStoreClosed()
	}
	return unwrap(r.m.block, wrapped)
}

func (r record) tag(data []byte) ([]byte, error) {
	r.m.mu.RLock()
	defer r.m.mu.RUnlock()
	if r.m.wiped {
		return nil, errStoreClosed()
	}
	return r.m.hmac(nil, data), nil
}

func (r record) version(s *Store) keystore.Version {
	k := &key{store: s, algorithm: r.Algorithm, m: r.m, provisioned: true, locked: true}
	return keystore.Version{Number: r.Version, Key: k.typed()}
}

// sealingRings makes version 1 of every sealing key.
func sealingRings(prefix string) map[string][]record {
	rings := map[string][]record{}
	for _, role := range keystore.SealingRoles() {
		a, label := role.Algorithm(), role.Label(prefix)
		m, err := generate(rand.Reader, a)
		if err != nil {
			panic(err) // 32 random bytes are always a key
		}
		rings[label] = []record{{Label: label, Version: 1, Algorithm: a, Local: true, m: m}}
	}
	return rings
}

// Create makes the next version of the provisioned key label. Each sealing algorithm
// goes by one label, see [keystore.SealingLabel].
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if err := s.open(); err != nil {
		return keystore.Version{}, err
	}
	m, err := generate(s.random, a)
	if err != nil {
		return keystore.Version{}, err
	}
	return s.provision(record{Label: label, Algorithm: a, Local: true, m: m})
}

// Provision makes the next version of the provisioned key label from given
// bytes. The caller keeps raw and wipes it.
func (s *Store) Provision(label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	if !a.Secret() {
		return keystore.Version{}, fmt.Errorf("soft: provision %v from bytes: %w", a, errors.ErrUnsupported)
	}
	m, err := secret(a, raw)
	if err != nil {
		return keystore.Version{}, err
	}
	return s.provision(record{Label: label, Algorithm: a, m: m})
}

// ProvisionKeyPair makes the next version of the provisioned key label from a
// given *rsa.PrivateKey or *ecdsa.PrivateKey, which the store keeps.
func (s *Store) ProvisionKeyPair(label string, a keystore.Algorithm, key crypto.Signer) (keystore.Version, error) {
	m, err := pair(a, key)
	if err != nil {
		return keystore.Version{}, err
	}
	return s.provision(record{Label: label, Algorithm: a, m: m})
}

func (s *Store) provision(r record) (keystore.Version, error) {
	if r.Label == "" || !keystore.LabelFits(s.prefix, r.Label, r.Algorithm) {
		return keystore.Version{}, fmt.Errorf("soft: a %v key cannot have the label %q: %w", r.Algorithm, r.Label, keystore.ErrWrongKey)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	r.Version = 1
	if ring := s.ring(r.Label); len(ring) > 0 {
		if ring[0].Algorithm != r.Algorithm {
			return keystore.Version{}, fmt.Errorf("soft: %q is a key for %v: %w", r.Label, ring[0].Algorithm, keystore.ErrExists)
		}
		r.Version = ring[0].Version + 1
	}
	err := s.change(func(rings map[string][]record) {
		rings[r.Label] = append([]record{r}, rings[r.Label]...)
	})
	if err != nil {
		return keystore.Version{}, err
	}
	return r.version(s), nil
}

// change writes a changed copy of the rings to the file, if there is one, and
// then makes it the store's. The caller holds s.admin.
func (s *Store) change(edit func(map[string][]record)) error {
	if err := s.open(); err != nil {
		return err
	}
	s.mu.RLock()
	rings := maps.Clone(s.rings)
	s.mu.RUnlock()
	edit(rings)
	if err := s.file.save(rings); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings = rings
	return nil
}

// Destroy removes one version of a provisioned key, or with version 0 all.
// Handles on it then give [keystore.ErrNotFound].
func (s *Store) Destroy(label string, version uint32) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.open(); err != nil {
		return err
	}
	var gone, kept []record
	for _, r := range s.ring(label) {
		if version == 0 || r.Version == version {
			gone = append(gone, r)
		} else {
			kept = append(kept, r)
		}
	}
	if len(gone) == 0 {
		return fmt.Errorf("soft: destroy: %w", keystore.NoVersion(label, version))
	}
	err := s.change(func(rings map[string][]record) {
		rings[label] = kept
		if len(kept) == 0 {
			delete(rings, label)
		}
	})
	if err != nil {
		return err
	}
	for _, r := range gone {
		r.m.wipe()
	}
	return nil
}

// List describes every provisioned key. It makes no claim of protection: the
// keys are in the memory of the process.
func (s *Store) List() ([]keystore.Info, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errStoreClosed()
	}
	all := []keystore.Info{}
	for _, ring := range s.rings {
		for _, r := range ring {
			all = append(all, keystore.Info{
				Reseals: r.Algorithm.SealsKeys(), Trusted: r.Algorithm.SealsKeys(),
				Label: r.Label, Version: r.Version, Algorithm: r.Algorithm,
				Local: r.Local, Usages: usages(r.Algorithm),
			})
		}
	}
	slices.SortFunc(all, keystore.Info.Compare)
	return all, nil
}

func usages(a keystore.Algorithm) []string {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC:
		return []string{"encrypt", "decrypt"}
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128, keystore.SealMAC256:
		return []string{"sign", "verify"}
	case keystore.SealSession256, keystore.SealWrapping256:
		return []string{"wrap", "unwrap"}
	case keystore.AESWrap128:
		return []string{"wrap"}
	case keystore.AESUnwrap128, keystore.AESReveal128, keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return []string{"unwrap"}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return []string{"decrypt"}
	}
	return []string{"sign"}
}
