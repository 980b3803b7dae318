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

// Versions are the versions of the two keys of an issuer, or of service tokens, that a
// store has. They are looked up again when a token names a newer one, which another
// program must have made. A Versions is safe for concurrent use; [FindVersions] makes it.
type Versions struct {
	store           keystore.Store
	encryption, mac string

	mu     sync.Mutex // held while they are looked up
	looked time.Time  // for a version that a token named
	named  named      // of those that are not known
	chosen uint32     // is used, or 0 for the newest
	least  uint32     // older ones open nothing any more

	now atomic.Pointer[[]IssuerKeys]
}

// Named are the numbers of unknown versions that tokens named: true if that was before the
// last look. Keys are older than the tokens they make, so then they are somebody else's.
type named map[uint32]bool

// maxNamed bounds the numbers that are remembered, since anybody can name any.
const maxNamed = 256

// note adds a number that was named since the last look.
func (n named) note(number uint32) {
	if _, noted := n[number]; !noted && len(n) < maxNamed {
		n[number] = false
	}
}

// lookedFor is called after a look for a number.
func (n named) lookedFor(number uint32) {
	if len(n) >= maxNamed {
		clear(n)
	}
	n[number] = true
	for other := range n {
		n[other] = true
	}
}

// lookPause is the least time between two looks that tokens cause: what a token names is
// not authentic, and to look for keys takes a device long.
const lookPause = time.Second

// errUnknownVersion says that a token may be of a version that is not known yet.
var errUnknownVersion = fmt.Errorf("msl: a token names a newer version of its keys, and they were looked up a moment ago: %w", keystore.ErrBusy)

// FindVersions finds the keys with these labels in a store, in every version that both
// have. The errors are those of [FindIssuer].
func FindVersions(store keystore.Store, encryption, mac string) (*Versions, error) {
	v := &Versions{store: store, encryption: encryption, mac: mac, named: named{}}
	return v, v.look()
}

// All returns the versions that are known: the first one is used for what is made from
// now on, and each opens what it made.
func (v *Versions) All() []IssuerKeys { return *v.now.Load() }

// Refresh looks the keys up again, in the device.
func (v *Versions) Refresh() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refresh()
}

// Choose has the version with that number used for what is made from now on, or else the
// one below it; zero means the newest. It is for the time in which not all servers of a
// network know the newest.
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
	if err == nil {
		v.set(found)
	}
	return err
}

// Since has versions below that number open nothing any more.
func (v *Versions) Since(number uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.least = number
	v.set(slices.Clone(v.All()))
}

// set leaves out what is too old, and orders the rest, newest first but for the chosen
// one. One is left, whatever its number.
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

// outdated reports whether a token was refused by the versions that are known, where others
// may accept it.
func outdated(err error) bool { return err == errSignature || errors.Is(err, keystore.ErrNotFound) }

// again looks for what a token needs whose verification was outdated, and reports whether
// there are other versions now.
func (v *Versions) again(err error, number uint32) (found bool, failed error) {
	if err == errSignature {
		return v.newer(number)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.looked) < lookPause {
		return false, errUnknownVersion
	}
	v.looked = time.Now()
	return true, v.refresh()
}

// newer looks for the version with that number, if it is newer than all that are known,
// and reports whether there are others now. A look that would come too soon is an error,
// for which the sender tries again, unless the last one came after a token of that version.
func (v *Versions) newer(number uint32) (found bool, err error) {
	if v.knows(number) {
		return false, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.knows(number):
		return true, nil // found meanwhile
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

// knows reports whether there can be no other keys with that number than those known.
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

// ServiceTokenKeys returns the keys of every service token. name is told in the tokens.
func (v *Versions) ServiceTokenKeys(name string) ServiceTokenKeys {
	return ServiceTokenKeys{"": serviceRing{Versions: v, name: name + " service"}}
}

// A serviceRing is a [KeyRing] of the versions of now.
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

// Encrypt encrypts with the version that is used.
func (r serviceRing) Encrypt(plaintext []byte) ([]byte, error) { return r.ring().Encrypt(plaintext) }

// Sign signs with the version that is used.
func (r serviceRing) Sign(data []byte) ([]byte, error) { return r.ring().Sign(data) }

// Verify accepts a signature of any of the versions.
func (r serviceRing) Verify(data, signature []byte) error { return r.ring().Verify(data, signature) }

// Decrypt opens an envelope with the version that it names.
func (r serviceRing) Decrypt(data []byte) ([]byte, error) { return r.ring().Decrypt(data) }

// verified returns the version that made a signature over a token. content is the part of
// the token whose envelope names a version, if it is encrypted.
func (r serviceRing) verified(data, signature, content []byte) (Opener, error) {
	key, err := verified(r.ring(), data, signature)
	if !outdated(err) {
		return key, err
	}
	switch found, failed := r.again(err, versionOf(content)); {
	case failed != nil:
		return key, fail(ErrInternalException, "look for newer keys", failed)
	case !found:
		return key, err
	}
	return verified(r.ring(), data, signature)
}
