package hsm

import (
	"bytes"
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A version is one version of a provisioned key, as it was found.
type version struct {
	label      string
	number     uint32
	id         []byte
	algorithm  keystore.Algorithm
	public     crypto.PublicKey
	handle     uint
	life       *life
	generation uint64 // of the module that found it last
	mark       mark
}

// rings remembers the provisioned keys by label, newest version first: to find
// an object takes long in a full token, and to prove it longer.
type rings struct {
	*connection
	recovery  *recovery
	inspector *inspector

	mu     sync.RWMutex
	labels map[string][]version
	chosen map[string]uint32 // versions that seal; zero or none means the newest

	searches *rate.Limiter // for versions that are not known

	// loading is held while token objects are looked for or made, which some
	// modules cannot do at the same time.
	loading lock
}

// epoch is that of the handle.
func (v version) epoch() uint64 {
	if v.life == nil {
		return 0
	}
	return v.life.epoch
}

func (r *rings) known(label string) []version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.labels[label]
}

func (r *rings) remember(label string, ring []version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.labels == nil {
		r.labels = map[string][]version{}
	}
	r.labels[label] = ring
}

// Lookup finds a provisioned key, and refuses it if it lacks the protection that its
// algorithm requires.
func (s *Store) Lookup(label string) ([]keystore.Version, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	ring, err := s.rings.ring(label)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	var all []keystore.Version
	for _, v := range ring {
		all = append(all, v.keyIn(s))
	}
	return all, nil
}

// handleIn makes a handle of its own on a provisioned key.
func (v version) handleIn(s *Store) *object {
	return &object{
		store: s, algorithm: v.algorithm, public: v.public, label: v.label, version: v.number, form: v.mark.form, sealer: v.mark,
		ref: ref{handle: v.handle, epoch: v.epoch()}, locked: true,
	}
}

// ring returns every version of a provisioned key, newest first.
func (r *rings) ring(label string) ([]version, error) {
	if ring := r.known(label); r.current(ring) {
		return ring, nil
	}
	if err := r.loading.take(r.wait); err != nil {
		return nil, err
	}
	defer r.loading.free()
	known := r.known(label)
	if r.current(known) {
		return known, nil
	}
	var ring []version
	err := r.recovery.attempt(func() error {
		return r.on(r.sessions, 0, func(session uint, epoch uint64) (err error) {
			ring, err = r.load(session, epoch, label, known)
			return err
		})
	}, nil)
	if errors.Is(err, keystore.ErrNotFound) {
		r.forgetLabel(label) // it was looked for well enough
	}
	if err != nil {
		return nil, err
	}
	r.remember(label, ring)
	return ring, nil
}

// current reports whether the handles of a ring are of the life that there is.
func (r *rings) current(ring []version) bool {
	return len(ring) > 0 && ring[0].life != nil && ring[0].life == r.life.Load()
}

// findVersion finds a provisioned key again.
func (r *rings) findVersion(label string, number uint32) (version, error) {
	v, found, err := r.search(label, number)
	if err == nil && !found {
		err = noVersion(label, number)
	}
	return v, err
}

// search finds a version of a key. One that is not known is looked for again: another program may
// have made it, or the module left it out for a moment. It was probably destroyed, and this is done
// about once a second.
func (r *rings) search(label string, number uint32) (v version, found bool, err error) {
	ring, err := r.ring(label)
	at := numbered(ring, number)
	if err == nil && at < 0 && r.searches.Allow() {
		r.outdate(label)
		ring, err = r.ring(label)
		at = numbered(ring, number)
	}
	if err != nil || at < 0 {
		return version{}, false, err
	}
	return ring[at], true, nil
}

func numbered(ring []version, number uint32) int {
	return slices.IndexFunc(ring, func(v version) bool { return v.number == number })
}

func noVersion(label string, number uint32) error {
	return fmt.Errorf("hsm: %w", keystore.NoVersion(label, number))
}

// forgetLabel drops what is known of a key, because it changes.
func (r *rings) forgetLabel(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.labels, label)
}

// outdate drops the handles of a key that should still be there.
func (r *rings) outdate(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ring, known := r.labels[label]; known {
		ring = slices.Clone(ring)
		ring[0].life = nil
		r.labels[label] = ring
	}
}

// load finds the versions of a key and proves each: a new one all over, and one
// that was known before to be the same. That a key which was there is not found
// does not mean that it is not there: some modules say so when the token went away.
func (r *rings) load(session uint, epoch uint64, label string, known []version) ([]version, error) {
	now, err := r.lifeOf(epoch)
	if err != nil {
		return nil, err
	}
	all, err := r.whole(session, label, known)
	if err == nil {
		err = replaced(all, known)
	}
	if err != nil {
		return nil, err
	}
	var ring []version
	for _, e := range all {
		v, err := r.admit(session, e, known)
		if err == nil {
			err = notTwin(r.inspector, session, e, ring)
		}
		if err != nil {
			return nil, err
		}
		v.life, v.generation = now, now.generation
		ring = append(ring, v)
	}
	switch {
	case len(ring) > 0:
		return newestFirst(ring), nil
	case len(known) > 0:
		return nil, r.missing(session, label, known[0].generation != now.generation)
	}
	if err := r.sees(session); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("hsm: key %q: %w", label, keystore.ErrNotFound)
}

// How often, and after which pause, a key is searched again of which a version is missing.
const (
	searchesAgain = 3
	searchPause   = 10 * time.Millisecond
)

// whole reads the versions of a key, again while one that was known is missing: a module that
// left out an object for a moment would make the store forget the version, and refuse what was
// sealed under it.
func (r *rings) whole(session uint, label string, known []version) (all []evidence, err error) {
	for again := 0; ; again++ {
		if all, err = r.inspector.labelled(session, label); err != nil || len(all) == 0 || again == searchesAgain {
			return all, err // one of which nothing is found is searched by another rule
		}
		there := func(v version) bool {
			return slices.ContainsFunc(all, func(e evidence) bool { return e.Version == v.number })
		}
		if !slices.ContainsFunc(known, func(v version) bool { return !there(v) }) {
			return all, nil
		}
		time.Sleep(searchPause)
	}
}

// replaced is an error where a key that was known is not there, but another one
// with its label and version.
func replaced(all []evidence, known []version) error {
	for _, old := range known {
		there := func(e evidence) bool { return bytes.Equal(e.id, old.id) }
		sameName := func(e evidence) bool { return e.Version == old.number }
		if !slices.ContainsFunc(all, there) && slices.ContainsFunc(all, sameName) {
			return notTheSame(old.label, old.number)
		}
	}
	return nil
}

// notTwin refuses another key with the label and identifier of a version that was found: which
// of them is used would be by chance. The same key may be there twice, as after a clone.
func notTwin(i *inspector, session uint, e evidence, ring []version) error {
	for _, v := range ring {
		if v.number != e.Version || !bytes.Equal(v.id, e.id) {
			continue
		}
		same, err := sameKey(i, session, e, v)
		if err == nil && !same {
			err = fmt.Errorf("hsm: two different keys have the label %q and the CKA_ID %x: %w; remove one with the software that made it, or give it another label", e.Label, e.id, keystore.ErrWrongKey)
		}
		return err
	}
	return nil
}

// sees is an error where a module finds no object in a token in which it has found keys: so some say
// that they cannot read it any more.
func (r *rings) sees(session uint) error {
	if len(r.names()) == 0 {
		return nil
	}
	all, err := r.find(session, template{}.flag(pkcs11.CKA_TOKEN, true))
	if err == nil && len(all) == 0 {
		err = &Error{Function: "C_FindObjects", Code: pkcs11.CKR_TOKEN_NOT_PRESENT}
	}
	return err
}

// missing is the error of a key that was there: not found, if the module was
// initialized anew since, and shows other objects.
func (r *rings) missing(session uint, label string, renewed bool) error {
	if err := r.checkLogin(session); err != nil {
		return err
	}
	others, err := r.find(session, template{}.flag(pkcs11.CKA_TOKEN, true))
	switch {
	case err != nil:
		return err
	case len(others) == 0 || !renewed:
		return &Error{Function: "C_FindObjects", Code: pkcs11.CKR_TOKEN_NOT_PRESENT}
	}
	return fmt.Errorf("hsm: key %q is gone: %w", label, keystore.ErrNotFound)
}

// newestFirst orders the versions of a key. Of two with the same number, which two
// programs made at the same time, the one whose identifier is smaller counts
// wherever it is looked up, and the other one stays where it is.
func newestFirst(ring []version) []version {
	slices.SortFunc(ring, func(a, b version) int {
		return cmp.Or(cmp.Compare(b.number, a.number), bytes.Compare(a.id, b.id))
	})
	return slices.CompactFunc(ring, func(a, b version) bool { return a.number == b.number })
}

// admit makes a version of what was found, or refuses it.
func (r *rings) admit(session uint, e evidence, known []version) (v version, err error) {
	v = version{label: e.Label, number: e.Version, id: e.id, handle: e.handle}
	for _, old := range known {
		if old.number == v.number && bytes.Equal(old.id, v.id) {
			v.algorithm, v.public, v.mark = old.algorithm, old.public, old.mark
			return v, r.inspector.sameAs(session, e, old)
		}
	}
	if err := r.inspector.judge(session, &e); err != nil {
		return v, err
	}
	if e.asksEachTime() {
		return v, fmt.Errorf("hsm: key %q version %d requires a login for each operation (CKA_ALWAYS_AUTHENTICATE), which is not supported: %w; make a key without that, or give this one another label", e.Label, e.Version, keystore.ErrWrongKey)
	}
	if weak := r.inspector.allow.others(e.Weaknesses); len(weak) > 0 {
		return v, e.weak(weak)
	}
	if !e.Algorithm.Valid() {
		return v, fmt.Errorf("hsm: key %q version %d does not match any algorithm: %w; %s", e.Label, e.Version, keystore.ErrNotFound, elsewhere)
	}
	v.algorithm = e.Algorithm
	if !e.Algorithm.Secret() {
		if v.public, err = r.inspector.publicHalf(session, e); err != nil {
			return v, err
		}
	}
	if v.mark, err = r.inspector.markOf(session, e); err == nil {
		err = confirm(r.inspector, session, e, v)
	}
	return v, err
}

// scan runs op, which reads token objects and may run again. For a moment it does
// so again too where objects come and go under it: other programs make them.
func (r *rings) scan(op func(session uint, epoch uint64) error) error {
	if err := r.loading.take(r.wait); err != nil {
		return err
	}
	defer r.loading.free()
	var err error
	for try := range 6 {
		err = r.recovery.attempt(func() error { return r.on(r.sessions, 0, op) }, nil)
		if c := classOf(err); err == nil || !errors.As(err, new(*Error)) || c != classOther && c != classObject {
			return err
		}
		time.Sleep(time.Duration(5+10*try+rand.IntN(10)) * time.Millisecond)
	}
	return err
}
