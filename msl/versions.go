package msl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Versions are the versions in a store of the two keys of an issuer, or of service
// tokens. They are looked up again when a token names a newer version, which another
// program must have made, and when one of them is gone, which another program must have
// destroyed. A Versions is safe for concurrent use; [FindVersions] makes it.
type Versions struct {
	// Lost, if not nil, is called when a version is gone: its tokens no longer open. used says
	// that it was the one in use. Lost must not look up the keys.
	Lost func(version uint32, used bool)

	store           keystore.Store
	encryption, mac string

	mu     sync.Mutex // held while they are looked up
	looked time.Time  // for a version named by a token, or one that is gone
	named  named      // of unknown ones
	chosen uint32     // in use, or 0 for the newest
	least  uint32     // older ones no longer open anything

	now atomic.Pointer[[]IssuerKeys]
}

// Named are the numbers of unknown versions that tokens named, true if before the last
// lookup. Keys are older than the tokens they make, so such a token is someone else's.
type named map[uint32]bool

// maxNamed bounds the numbers remembered, since anyone can name any number.
const maxNamed = 256

// note adds a number named since the last lookup.
func (n named) note(number uint32) {
	if _, noted := n[number]; !noted && len(n) < maxNamed {
		n[number] = false
	}
}

// lookedFor is called after a lookup for a number.
func (n named) lookedFor(number uint32) {
	if len(n) >= maxNamed {
		clear(n)
	}
	n[number] = true
	for other := range n {
		n[other] = true
	}
}

// lookPause is the minimum time between two lookups caused by tokens: what a token names
// is not authentic, and a device takes long to look for keys.
const lookPause = time.Second

// errUnknownVersion says that a token may be of a version not known yet.
var errUnknownVersion = fmt.Errorf("msl: a token names a newer version of its keys, and they were looked up a moment ago: %w", keystore.ErrBusy)

// FindVersions finds the keys with these labels in a store, in every version that both
// have. The errors are those of [FindIssuer].
func FindVersions(store keystore.Store, encryption, mac string) (*Versions, error) {
	v := &Versions{store: store, encryption: encryption, mac: mac, named: named{}}
	return v, v.look()
}

// All returns the known versions: the first protects new data, and each opens what it
// made.
func (v *Versions) All() []IssuerKeys { return *v.now.Load() }

// Refresh looks up the keys again in the device.
func (v *Versions) Refresh() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refresh()
}

// Choose uses the version with that number, or else the one below it, for new data; zero
// means the newest. Use it while not all servers of a network know the newest version.
func (v *Versions) Choose(number uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.chosen = number
	v.set(slices.Clone(v.All()))
}

func (v *Versions) refresh() error {
	if changing, ok := v.store.(keystore.Changing); ok {
		if err := changing.Refresh(v.encryption, v.mac); err != nil {
			return err
		}
	}
	return v.look()
}

func (v *Versions) look() error {
	found, err := findKeyRing(v.store, v.encryption, v.mac)
	if err != nil {
		return err
	}
	before := v.now.Load()
	v.set(found)
	if before != nil {
		v.lose(*before, found)
	}
	return nil
}

// lose calls Lost for the versions that were there before and are no longer.
func (v *Versions) lose(before, found []IssuerKeys) {
	for i, k := range before {
		if slices.ContainsFunc(found, func(f IssuerKeys) bool { return f.Version == k.Version }) {
			continue
		}
		v.named.lookedFor(k.Version)
		if v.Lost != nil {
			v.Lost(k.Version, i == 0)
		}
	}
}

// use calls f with the version in use. If that is gone, the versions are looked up again,
// and f is called once more with the one that is then in use. If they cannot be looked up, the
// error says why.
func (v *Versions) use(f func(IssuerKeys) error) error {
	before := v.now.Load()
	err := f((*before)[0])
	if !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	switch failed := v.replace(before); failed {
	case nil:
		return f(v.All()[0])
	case errUnknownVersion:
		return err
	default:
		return failed
	}
}

// replace looks up the versions again, since one of those before is gone, unless another
// goroutine did.
func (v *Versions) replace(before *[]IssuerKeys) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.now.Load() != before:
		return nil
	case time.Since(v.looked) < lookPause:
		return errUnknownVersion
	}
	v.looked = time.Now()
	return v.refresh()
}

// Sum returns the MAC of data by the version in use, to try whether tokens can be made.
func (v *Versions) Sum(data []byte) (sum []byte, err error) {
	err = v.use(func(k IssuerKeys) error {
		sum, err = k.MAC.Sum(data)
		return err
	})
	return sum, err
}

// Since makes versions below that number open nothing anymore.
func (v *Versions) Since(number uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.least = number
	v.set(slices.Clone(v.All()))
}

// set drops versions that are too old, and orders the rest: the chosen one, then newest
// first. At least one is kept, whatever its number.
func (v *Versions) set(all []IssuerKeys) {
	old := func(k IssuerKeys) bool { return k.Version < v.least }
	if !slices.ContainsFunc(all, func(k IssuerKeys) bool { return !old(k) }) {
		old = func(IssuerKeys) bool { return false }
	}
	all = slices.DeleteFunc(all, old)
	slices.SortFunc(all, func(a, b IssuerKeys) int { return int(int64(b.Version) - int64(a.Version)) })
	i := slices.IndexFunc(all, func(k IssuerKeys) bool { return v.chosen == 0 || k.Version <= v.chosen })
	if i > 0 {
		first := all[i]
		all = slices.Insert(slices.Delete(all, i, i+1), 0, first)
	}
	v.now.Store(&all)
}

// outdated reports whether the known versions refused a token that others may accept.
func outdated(err error) bool { return err == errSignature || errors.Is(err, keystore.ErrNotFound) }

// again looks for the key of a token that the versions before refused with an outdated
// error, and reports whether they have changed.
func (v *Versions) again(before *[]IssuerKeys, err error, number uint32) (found bool, failed error) {
	if err == errSignature {
		return v.newer(number)
	}
	return true, v.replace(before)
}

// newer looks for the version with that number, if it is newer than all known ones, and
// reports whether it was found. A lookup too soon is an error, after which the sender
// tries again, unless a token of that version came before the last lookup.
func (v *Versions) newer(number uint32) (found bool, err error) {
	if v.knows(number) {
		return false, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.knows(number):
		return true, nil // found in the meantime
	case time.Since(v.looked) < lookPause && v.named[number]:
		return false, nil
	case time.Since(v.looked) < lookPause:
		v.named.note(number)
		return false, errUnknownVersion
	}
	v.looked = time.Now()
	if err := v.refresh(); err != nil {
		return false, err
	}
	v.named.lookedFor(number)
	return v.knows(number), nil
}

// knows reports whether no unknown keys can have that number.
func (v *Versions) knows(number uint32) bool {
	return slices.ContainsFunc(v.All(), func(k IssuerKeys) bool { return k.Version >= number })
}

// versionOf returns the number in the name of a key that encrypted data, or 0.
func versionOf(data []byte) uint32 {
	name := hint(data)
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '#')+1:], 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// ServiceTokenKeys returns the keys of every service token. name is written into the
// tokens.
func (v *Versions) ServiceTokenKeys(name string) ServiceTokenKeys {
	return ServiceTokenKeys{"": serviceRing{Versions: v, name: name + " service"}}
}

// A serviceRing is a [KeyRing] of the current versions.
type serviceRing struct {
	*Versions
	name string
	rand io.Reader
}

func (r serviceRing) ring() (ring KeyRing) {
	for _, v := range r.All() {
		ring = append(ring, v.symmetric(r.name, r.rand))
	}
	return ring
}

// Encrypt encrypts with the version in use.
func (r serviceRing) Encrypt(plaintext []byte) ([]byte, error) { return r.ring().Encrypt(plaintext) }

// Sign signs with the version in use.
func (r serviceRing) Sign(data []byte) ([]byte, error) { return r.ring().Sign(data) }

// Verify accepts a signature by any version.
func (r serviceRing) Verify(data, signature []byte) error { return r.ring().Verify(data, signature) }

// Decrypt opens an envelope with the version that it names.
func (r serviceRing) Decrypt(data []byte) ([]byte, error) { return r.ring().Decrypt(data) }

// verified returns the version that made a signature over a token. content is the part of
// the token whose envelope names a version, if it is encrypted.
func (r serviceRing) verified(data, signature, content []byte, search *versionSearch) (Opener, error) {
	before := r.now.Load()
	key, err := r.ring().verified(data, signature, content, search)
	if !outdated(err) {
		return key, err
	}
	switch found, failed := r.again(before, err, versionOf(content)); {
	case failed != nil:
		return key, fail(ErrInternalException, "look for newer keys", failed)
	case !found:
		return key, err
	}
	return r.ring().verified(data, signature, content, search)
}
