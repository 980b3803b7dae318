package tpm

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A record is one version of a provisioned key.
type record struct {
	storedKey
	object *object
	gone   atomic.Bool // destroyed, or its store is closed
}

// records makes the rings of the keys of a state file. Of known keys it takes
// the records that are there.
func (s *Store) records(keys []storedKey, known map[string][]*record) map[string][]*record {
	rings := map[string][]*record{}
	for _, k := range keys {
		i := slices.IndexFunc(known[k.Label], func(r *record) bool { return r.Version == k.Version && bytes.Equal(r.Public, k.Public) })
		if i >= 0 {
			rings[k.Label] = append(rings[k.Label], known[k.Label][i])
		} else {
			rings[k.Label] = append(rings[k.Label], s.record(k))
		}
	}
	for _, ring := range rings {
		slices.SortFunc(ring, func(a, b *record) int { return cmp.Compare(b.Version, a.Version) })
	}
	return rings
}

func (s *Store) record(k storedKey) *record {
	r := &record{storedKey: k, object: newObject(s.parent, k.Public, k.Private)}
	r.object.persistent = uint32(k.Handle)
	if e, err := inspect(k.Algorithm, k.Public); err == nil && e.pin {
		r.object.auth = s.pin
	}
	return r
}

// refresh reads the state file again if another process has changed it. The
// caller holds s.admin.
func (s *Store) refresh() error {
	st, err := s.state.again()
	if err != nil || st == nil {
		return err
	}
	if !bytes.Equal(st.file.StorageKey.Public, s.parent.public) {
		return fmt.Errorf("tpm: state file %s has another storage key than before: open it again: %w", st.path, keystore.ErrForeign)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStoreClosed()
	}
	old := s.rings
	s.state, s.rings = st, s.records(st.file.Keys, old)
	for label, ring := range old {
		for _, r := range ring {
			if !slices.Contains(s.rings[label], r) {
				r.gone.Store(true) // another process destroyed it
			}
		}
	}
	return nil
}

// ring returns the versions of a provisioned key, those of other processes too
// unless the state file cannot be read now. It is never changed in place.
func (s *Store) ring(label string) []*record {
	if s.admin.TryLock() {
		_ = s.refresh()
		s.admin.Unlock()
	}
	return s.known(label)
}

func (s *Store) known(label string) []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rings[label]
}

// Lookup finds every version of a provisioned key, newest first.
func (s *Store) Lookup(label string) ([]keystore.Version, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	ring := s.ring(label)
	if len(ring) == 0 {
		return nil, fmt.Errorf("tpm: look up %q: %w", label, keystore.ErrNotFound)
	}
	versions := make([]keystore.Version, len(ring))
	for i, r := range ring {
		k, err := s.version(r)
		if err != nil {
			return nil, fmt.Errorf("tpm: look up %q version %d: %w", label, r.Version, err)
		}
		versions[i] = k
	}
	return versions, nil
}

func (s *Store) version(r *record) (keystore.Version, error) {
	e, err := inspect(r.Algorithm, r.Public)
	if err != nil {
		return keystore.Version{}, err
	}
	if e.pin && s.pin.Len() == 0 {
		return keystore.Version{}, fmt.Errorf("the key was made with a PIN, and there is none: %w", keystore.ErrPIN)
	}
	k := &key{store: s, algorithm: r.Algorithm, object: r.object, record: r, locked: true}
	if k.public, err = e.key(); err != nil {
		return keystore.Version{}, err
	}
	return keystore.Version{Number: r.Version, Key: k.typed()}, nil
}

// Create makes the next version of the provisioned key label, with the PIN if
// the store has one. The algorithm seal-mac goes by the label SealLabel, which
// no other has.
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if label == "" || (label == SealLabel) != (a == keystore.SealMAC256) {
		return keystore.Version{}, fmt.Errorf("tpm: no %v key goes by the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.free(label, a); err != nil {
		return keystore.Version{}, err
	}
	o, err := s.create(a, made, s.pin, nil)
	if err != nil {
		return keystore.Version{}, err
	}
	return s.provision(storedKey{Label: label, Algorithm: a, Public: o.public, Private: o.private})
}

// free asks that no other algorithm has the label. The caller holds s.admin.
func (s *Store) free(label string, a keystore.Algorithm) error {
	if err := s.open(); err != nil {
		return err
	}
	if err := s.refresh(); err != nil {
		return err
	}
	if ring := s.known(label); len(ring) > 0 && ring[0].Algorithm != a {
		return fmt.Errorf("tpm: %q is a key for %v: %w", label, ring[0].Algorithm, keystore.ErrExists)
	}
	return nil
}

// provision adds the next version of a key. The caller holds s.admin.
func (s *Store) provision(k storedKey) (keystore.Version, error) {
	k.Version = 1
	ring := s.known(k.Label)
	if len(ring) > 0 {
		k.Version = ring[0].Version + 1
	}
	if err := s.state.change(func(f *stateFile) { f.Keys = append(f.Keys, k) }); err != nil {
		return keystore.Version{}, err
	}
	r := s.record(k)
	if err := s.set(k.Label, append([]*record{r}, ring...)); err != nil {
		return keystore.Version{}, err
	}
	return s.version(r)
}

// set replaces a ring.
func (s *Store) set(label string, ring []*record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStoreClosed()
	}
	s.rings[label] = ring
	if len(ring) == 0 {
		delete(s.rings, label)
	}
	return nil
}

// Destroy removes one version of a provisioned key, or with version 0 all:
// from the state file, and from the TPM where it is persistent. A copy of the
// state file has the blobs still; they are of no use to any other TPM.
func (s *Store) Destroy(label string, version uint32) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.open(); err != nil {
		return err
	}
	if err := s.refresh(); err != nil {
		return err
	}
	var gone, kept []*record
	for _, r := range s.known(label) {
		if version == 0 || r.Version == version {
			gone = append(gone, r)
		} else {
			kept = append(kept, r)
		}
	}
	if len(gone) == 0 {
		return fmt.Errorf("tpm: destroy %q version %d: %w", label, version, keystore.ErrNotFound)
	}
	err := s.state.change(func(f *stateFile) {
		f.Keys = slices.DeleteFunc(f.Keys, func(k storedKey) bool {
			return k.Label == label && (version == 0 || k.Version == version)
		})
	})
	if err != nil {
		return err
	}
	if err := s.set(label, kept); err != nil {
		return err
	}
	return s.remove(gone)
}

func (s *Store) remove(gone []*record) error {
	for _, r := range gone {
		r.gone.Store(true)
	}
	return s.device.Do(func(transport.TPM) error {
		for _, r := range gone {
			if err := s.device.tpm.unpersist(r.object); err != nil {
				return err
			}
			s.device.resources.drop(r.object)
		}
		return nil
	})
}

// List tells of every provisioned key what its public area proves.
func (s *Store) List() ([]keystore.Info, error) {
	s.ring("") // look whether another process has changed the file
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errStoreClosed()
	}
	all := []keystore.Info{}
	for _, ring := range s.rings {
		for _, r := range ring {
			all = append(all, r.info())
		}
	}
	slices.SortFunc(all, func(a, b keystore.Info) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(b.Version, a.Version))
	})
	return all, nil
}

// info is the evidence about a key. No key of a TPM can be read, and none with
// an empty policy leaves it.
func (r *record) info() keystore.Info {
	i := keystore.Info{Label: r.Label, Version: r.Version, Algorithm: r.Algorithm, Usages: usages(r.Algorithm)}
	e, err := inspect(r.Algorithm, r.Public)
	if err != nil {
		i.Weaknesses = []string{"public-area"}
		return i
	}
	i.Sensitive, i.NeverExtractable = true, e.from == made
	i.Local, i.AlwaysSensitive = e.from == made, e.from == made
	return i
}

func usages(a keystore.Algorithm) []string {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC:
		return []string{"encrypt", "decrypt"}
	case keystore.AESReveal128:
		return []string{"unwrap"}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return []string{"decrypt"}
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128, keystore.SealMAC256:
		return []string{"sign", "verify"}
	}
	return []string{"sign"}
}
