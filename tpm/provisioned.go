package tpm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// ProvisionedKeys are the keys in a state file, which other processes may also change.
type provisionedKeys struct {
	storage *storage
	pin     *lockedmem.Buffer // of new keys; nil if none

	admin sync.Mutex // held while the keys change or the store is closed
	state *state

	parents []*object // storage keys of adopted keys; guarded by admin

	mu    sync.Mutex           // guards rings
	rings map[string][]*record // keys by label, newest first
}

// A record is one version of a provisioned key.
type record struct {
	storedKey
	object *object
	gone   atomic.Bool // destroyed, or its store closed
}

// records sorts the keys of a state file into rings, and reuses the records of known
// keys.
func (p *provisionedKeys) records(keys []storedKey, known map[string][]*record) map[string][]*record {
	rings := map[string][]*record{}
	for _, k := range keys {
		i := slices.IndexFunc(known[k.Label], func(r *record) bool { return r.Version == k.Version && bytes.Equal(r.Public, k.Public) })
		if i >= 0 {
			rings[k.Label] = append(rings[k.Label], known[k.Label][i])
		} else {
			rings[k.Label] = append(rings[k.Label], p.record(k))
		}
	}
	for _, ring := range rings {
		slices.SortFunc(ring, func(a, b *record) int { return cmp.Compare(b.Version, a.Version) })
	}
	return rings
}

func (p *provisionedKeys) record(k storedKey) *record {
	r := &record{storedKey: k, object: newObject(p.parent(k), k.Public, k.Private)}
	r.object.persistent = uint32(k.Handle)
	if e, err := k.inspect(); err == nil && e.pin {
		r.object.auth = p.pin
	}
	return r
}

// refresh reads the state file again if another process has changed it. The caller must
// hold admin.
func (p *provisionedKeys) refresh() error {
	if err := p.storage.open(); err != nil {
		return err
	}
	st, err := p.state.again()
	if err != nil || st == nil {
		return err
	}
	if !bytes.Equal(st.file.StorageKey.Public, p.storage.key.public) {
		return fmt.Errorf("tpm: the storage key in state file %s has changed: open it again: %w", st.path, keystore.ErrForeign)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.rings
	p.state, p.rings = st, p.records(st.file.Keys, old)
	for label, ring := range old {
		for _, r := range ring {
			if !slices.Contains(p.rings[label], r) {
				r.gone.Store(true) // another process destroyed it
			}
		}
	}
	return nil
}

// ring returns the versions of a key after reading the state file again, if that is
// possible now. A ring is never changed in place.
func (p *provisionedKeys) ring(label string) []*record {
	if p.admin.TryLock() {
		_ = p.refresh()
		p.admin.Unlock()
	}
	return p.known(label)
}

// known returns the versions of a key as last read.
func (p *provisionedKeys) known(label string) []*record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rings[label]
}

func (p *provisionedKeys) find(label string, version uint32) (*record, error) {
	if err := p.storage.open(); err != nil {
		return nil, err
	}
	for _, r := range p.known(label) {
		if r.Version == version {
			return r, nil
		}
	}
	return nil, fmt.Errorf("tpm: %w", keystore.NoVersion(label, version))
}

// version returns a record as a keystore.Version.
func (p *provisionedKeys) version(r *record) (keystore.Version, error) {
	e, err := r.inspect()
	if err != nil {
		return keystore.Version{}, err
	}
	if e.pin && p.pin.Len() == 0 {
		return keystore.Version{}, keystore.NoPINf("the key was made with a PIN, but none was given")
	}
	k := &key{storage: p.storage, algorithm: r.Algorithm, object: r.object, record: r, locked: true}
	if k.public, err = e.key(); err != nil {
		return keystore.Version{}, err
	}
	return keystore.Version{Number: r.Version, Key: k.typed()}, nil
}

// free checks that no key of another algorithm has the label. The caller must hold admin.
func (p *provisionedKeys) free(label string, a keystore.Algorithm) error {
	if err := p.refresh(); err != nil {
		return err
	}
	if ring := p.known(label); len(ring) > 0 && ring[0].Algorithm != a {
		return fmt.Errorf("tpm: %q is a key for %v: %w", label, ring[0].Algorithm, keystore.ErrExists)
	}
	return nil
}

// add makes the next version of a key from the object that create returns.
func (p *provisionedKeys) add(label string, a keystore.Algorithm, create func() (*object, error)) (keystore.Version, error) {
	return p.addKey(label, a, func() (storedKey, error) {
		o, err := create()
		if err != nil {
			return storedKey{}, err
		}
		return storedKey{Public: o.public, Private: o.private}, nil
	})
}

// addKey makes the next version of a key from what create returns.
func (p *provisionedKeys) addKey(label string, a keystore.Algorithm, create func() (storedKey, error)) (keystore.Version, error) {
	p.admin.Lock()
	defer p.admin.Unlock()
	if err := p.free(label, a); err != nil {
		return keystore.Version{}, err
	}
	k, err := create()
	if err != nil {
		return keystore.Version{}, err
	}
	k.Label, k.Version, k.Algorithm = label, 1, a
	ring := p.known(label)
	if len(ring) > 0 {
		k.Version = ring[0].Version + 1
	}
	if err := p.state.change(func(f *stateFile) { f.Keys = append(f.Keys, k) }); err != nil {
		return keystore.Version{}, err
	}
	r := p.record(k)
	p.set(label, append([]*record{r}, ring...))
	return p.version(r)
}

// all returns the keys of every label.
func (p *provisionedKeys) all() (list []*record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ring := range p.rings {
		list = append(list, ring...)
	}
	return list
}

// set replaces a ring. The caller must hold admin.
func (p *provisionedKeys) set(label string, ring []*record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rings[label] = ring
	if len(ring) == 0 {
		delete(p.rings, label)
	}
}

// destroy removes one version of a key, or all for 0, from the file and from the TPM.
func (p *provisionedKeys) destroy(label string, version uint32) error {
	p.admin.Lock()
	defer p.admin.Unlock()
	if err := p.refresh(); err != nil {
		return err
	}
	var gone, kept []*record
	for _, r := range p.known(label) {
		if version == 0 || r.Version == version {
			gone = append(gone, r)
		} else {
			kept = append(kept, r)
		}
	}
	if len(gone) == 0 {
		return fmt.Errorf("tpm: destroy: %w", keystore.NoVersion(label, version))
	}
	err := p.state.change(func(f *stateFile) {
		f.Keys = slices.DeleteFunc(f.Keys, func(k storedKey) bool {
			return k.Label == label && (version == 0 || k.Version == version)
		})
	})
	if err != nil {
		return err
	}
	p.set(label, kept)
	return p.remove(gone)
}

func (p *provisionedKeys) remove(gone []*record) error {
	for _, r := range gone {
		r.gone.Store(true)
	}
	return p.storage.device.Do(func(transport.TPM) error {
		for _, r := range gone {
			if err := p.storage.device.tpm.unpersist(r.object); err != nil {
				return err
			}
			p.storage.device.resources.drop(r.object)
		}
		return nil
	})
}

// persist makes a key persistent, and records its handle in the file.
func (p *provisionedKeys) persist(label string, version uint32, at tpm2.TPMHandle) error {
	p.admin.Lock()
	defer p.admin.Unlock()
	if err := p.refresh(); err != nil {
		return err
	}
	r, err := p.find(label, version)
	if err != nil {
		return err
	}
	if at>>24 != 0x81 || r.Handle != 0 {
		return fmt.Errorf("tpm: persist %q version %d at %#x: not a persistent handle, or it has one: %w", label, version, uint32(at), keystore.ErrExists)
	}
	if err := p.storage.persist(r.object, uint32(at)); err != nil {
		return err
	}
	err = p.state.change(func(f *stateFile) {
		for i, k := range f.Keys {
			if k.Label == label && k.Version == version {
				f.Keys[i].Handle = handle(at)
			}
		}
	})
	if err != nil { // it could not be found again
		return errors.Join(err, p.storage.freeHandle(entity{handle: uint32(at), name: r.object.name}))
	}
	return p.storage.do(func() error {
		p.storage.device.resources.unload(r.object)
		r.Handle, r.object.persistent = handle(at), uint32(at)
		return nil
	})
}

// close closes the keys, and returns the objects to flush. The caller must hold admin.
func (p *provisionedKeys) close() (all []*object) {
	for _, r := range p.all() {
		r.gone.Store(true)
		all = append(all, r.object)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.rings)
	return all
}

// info describes a key. No key in a TPM can be read, and none with an empty policy can
// leave it.
func (r *record) info() keystore.Info {
	i := keystore.Info{Label: r.Label, Version: r.Version, Algorithm: r.Algorithm, Usages: usages(r.Algorithm)}
	e, err := r.inspect()
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
