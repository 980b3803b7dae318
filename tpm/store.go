package tpm

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says where the TPM and its keys are.
type Config struct {
	// URI names the TPM and the state file. See URI for the grammar.
	URI string
	// PIN is the authorization value of provisioned keys that are made with
	// one, 1 to 32 bytes without a zero byte. Keys made by a store with a PIN
	// need it; a wrong one counts for the TPM's dictionary attack protection.
	// Session keys have none. The store keeps a copy in locked memory until it
	// is closed; the caller wipes this one.
	PIN []byte
}

// A Store is the keys of one storage key of a TPM. It is a [keystore.Store],
// [keystore.Importer] and [keystore.Admin].
type Store struct {
	device *Device
	owns   bool // Close closes the device
	parent *object
	state  *state
	pin    *lockedmem.Buffer // nil: there is none

	refused error // what the TPM said of the PIN; belongs to whoever has the turn

	admin sync.Mutex // held while provisioned keys change

	mu     sync.Mutex // guards what follows
	closed bool
	live   map[*key]struct{}
	rings  map[string][]*record // provisioned keys by label, newest first
}

var (
	_ keystore.Store    = (*Store)(nil)
	_ keystore.Importer = (*Store)(nil)
	_ keystore.Admin    = (*Store)(nil)
)

// Provider says where the keys of a Store are.
func Provider() keystore.Provider { return keystore.Provider{Name: "tpm", TPM: true} }

// OpenStore opens the store that Init made. A state file that is not there is
// [keystore.ErrNotFound]; one of another TPM, or of this one before it was
// cleared, [keystore.ErrForeign]; a damaged one [keystore.ErrBadData]; a TPM
// that is not there [keystore.ErrUnavailable].
func OpenStore(c Config) (*Store, error) { return c.open((*Device).OpenStore) }

func (c Config) open(open func(*Device, StoreConfig) (*Store, error)) (*Store, error) {
	u, err := ParseURI(c.URI)
	if err != nil {
		return nil, err
	}
	d, err := u.open()
	if err != nil {
		return nil, err
	}
	s, err := open(d, StoreConfig{State: u.State, SRK: u.SRK, PIN: c.PIN})
	if err != nil {
		d.Close()
		return nil, err
	}
	s.owns = true
	return s, nil
}

// A StoreConfig says which keys of a Device to use: State and PIN as in Config.
type StoreConfig struct {
	State string // path of the state file
	SRK   uint32 // persistent handle of the storage key, for Init; 0 is 0x81000001
	PIN   []byte
}

// OpenStore opens a store on a Device, which the caller closes after it. Several
// may be open.
func (d *Device) OpenStore(c StoreConfig) (*Store, error) {
	pin, err := checkPIN(c.PIN)
	if err != nil {
		return nil, err
	}
	s, err := d.openStore(c, pin)
	if err != nil {
		pin.Close()
	}
	return s, err
}

func (d *Device) openStore(c StoreConfig, pin *lockedmem.Buffer) (*Store, error) {
	st, err := readState(c.State)
	if err != nil {
		return nil, err
	}
	s := &Store{device: d, state: st, pin: pin, live: map[*key]struct{}{}}
	err = d.Do(func(transport.TPM) (err error) {
		s.parent, err = d.tpm.storageKey(uint32(st.file.StorageKey.Handle), st.file.StorageKey.Public)
		if err != nil {
			return err
		}
		_, err = d.tpm.session(s.parent)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.rings = s.records(st.file.Keys, nil)
	return s, nil
}

// checkPIN takes a copy into locked memory. go-tpm and other programs stumble over zero bytes in
// authorization values, and a TPM takes off those at the end.
func checkPIN(pin []byte) (*lockedmem.Buffer, error) {
	if len(pin) > sessionHash || slices.Contains(pin, 0) {
		return nil, fmt.Errorf("tpm: the PIN of %d bytes has a zero byte or more than %d bytes: %w", len(pin), sessionHash, keystore.ErrPIN)
	}
	if len(pin) == 0 {
		return nil, nil
	}
	return lockedmem.Copy(pin), nil
}

// StorageKey returns the handle and the public area of the storage key: what
// the state file has pinned. Salt sessions with this, never with what
// TPM2_ReadPublic answers.
func (s *Store) StorageKey() (tpm2.TPMHandle, *tpm2.TPMTPublic, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.parent.public)
	if err != nil {
		return 0, nil, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	return tpm2.TPMHandle(s.parent.persistent), public, nil
}

// Device returns the Device under the store, for what a key store has no word
// for.
func (s *Store) Device() *Device { return s.device }

// Generate makes a session key or a session key pair. Its blob is in the memory
// of the process, and it is loaded when it is used. It has no PIN.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if a == keystore.SealMAC256 {
		return nil, unsupported(a)
	}
	return s.make(a, made, nil)
}

// Import makes a session key of given bytes, which go to the TPM encrypted.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if !a.Secret() || a.Sealing() {
		return nil, unsupported(a)
	}
	if len(raw) != a.Size() {
		return nil, fmt.Errorf("tpm: import %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	return s.make(a, given, raw)
}

func (s *Store) make(a keystore.Algorithm, from origin, raw []byte) (keystore.Key, error) {
	o, err := s.create(a, from, nil, raw)
	if err != nil {
		return nil, err
	}
	return s.adopt(a, o, false)
}

// create makes a key under the storage key.
func (s *Store) create(a keystore.Algorithm, from origin, pin *lockedmem.Buffer, raw []byte) (o *object, err error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	t, err := template(a, from, pin.Len() > 0)
	if err != nil {
		return nil, err
	}
	if err := s.device.tpm.caps.supports(a); err != nil {
		return nil, err
	}
	err = s.do(func() (err error) {
		o, err = s.device.tpm.create(s.parent, tpm2.Marshal(t), pin, raw)
		return err
	})
	if errors.Is(err, tpm2.TPMRCValue) {
		err = fmt.Errorf("tpm: this TPM has no %v keys: %w: %w", a, errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	_, err = inspect(a, o.public)
	return o, err
}

// supports is asked so that a key that could do nothing is not made.
func (c Capabilities) supports(a keystore.Algorithm) error {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.AESReveal128:
		if !c.EncryptDecrypt {
			return fmt.Errorf("tpm: %v: this TPM has no TPM2_EncryptDecrypt2: keep such keys in another store: %w", a, errors.ErrUnsupported)
		}
	case keystore.AESCMAC128:
		if !slices.Contains(c.Algorithms, tpm2.TPMAlgCMAC) {
			return fmt.Errorf("tpm: %v: this TPM has no CMAC: %w", a, errors.ErrUnsupported)
		}
	case keystore.ECDSAP384:
		if !slices.Contains(c.Curves, tpm2.TPMECCNistP384) {
			return fmt.Errorf("tpm: %v: this TPM has no curve P-384: %w", a, errors.ErrUnsupported)
		}
	}
	return nil
}

// do has the TPM for f, and once more if it has lost what was loaded, or if its
// connection broke: nothing that f does is harmed by being done twice.
func (s *Store) do(f func() error) error {
	for again := true; ; again = false {
		err := s.device.Do(func(transport.TPM) error {
			err := f()
			if again && gone(err) {
				s.device.resources.discard()
				err = f()
			}
			return err
		})
		var e *linkError
		if !again || !errors.As(err, &e) || e.timeout() {
			return err
		}
	}
}

// use runs f with a key loaded, and a session to use it with. check says whether
// the key is still open when its turn has come.
func (s *Store) use(o *object, check func() error, f func(loadedKey) error) error {
	return s.do(func() error {
		if err := check(); err != nil {
			return err
		}
		if o.auth.Len() > 0 && s.refused != nil {
			return s.refused
		}
		if err := s.device.tpm.load(o); err != nil {
			return err
		}
		session, err := s.device.tpm.session(root(o))
		if err != nil {
			return err
		}
		err = f(loadedKey{tpm: s.device.tpm, entity: o.entity(), session: session})
		if o.auth.Len() > 0 && (errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)) {
			s.refused = err
		}
		return err
	})
}

// With lets f use a key of this store by go-tpm commands: to certify it, or to
// prove where it is. f has the TPM for itself, under the rules of Device.Do.
func (s *Store) With(k keystore.Key, f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	own, err := s.own(k)
	if err != nil {
		return err
	}
	return s.lend(own.object, own.check, f)
}

// WithStorageKey lets f use the storage key, as With: to certify it.
func (s *Store) WithStorageKey(f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return s.lend(s.parent, s.open, f)
}

func (s *Store) lend(o *object, check func() error, f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return s.device.Do(func(t transport.TPM) error {
		if err := check(); err != nil {
			return err
		}
		if err := s.device.tpm.load(o); err != nil {
			return err
		}
		return f(t, o.named())
	})
}

// adopt makes an object a session key of the store.
func (s *Store) adopt(a keystore.Algorithm, o *object, locked bool) (keystore.Key, error) {
	k := &key{store: s, algorithm: a, object: o, locked: locked}
	if !a.Secret() {
		e, err := inspect(a, o.public)
		if err == nil {
			k.public, err = e.key()
		}
		if err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errStoreClosed()
	}
	s.live[k] = struct{}{}
	return k.typed(), nil
}

// own finds the key of this store behind k.
func (s *Store) own(k keystore.Key) (*key, error) {
	if b, ok := k.(interface{ base() *key }); ok && b.base().store == s {
		return b.base(), nil
	}
	return nil, fmt.Errorf("tpm: key of another store: %w", keystore.ErrWrongKey)
}

func (s *Store) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStoreClosed()
	}
	return nil
}

func errStoreClosed() error { return fmt.Errorf("tpm: store: %w", keystore.ErrClosed) }

// Live counts the session keys that were not closed yet. The second number,
// sessions in use, is always 0: one is kept for all.
func (s *Store) Live() (objects, sessions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live), 0
}

// Close closes every key of the store and takes them out of the TPM.
func (s *Store) Close() error {
	s.admin.Lock()
	defer s.admin.Unlock()
	s.mu.Lock()
	again := s.closed
	s.closed = true
	var all []*object
	for k := range s.live {
		k.closed.Store(true)
		all = append(all, k.object)
	}
	for _, ring := range s.rings {
		for _, r := range ring {
			r.gone.Store(true)
			all = append(all, r.object)
		}
	}
	clear(s.live)
	clear(s.rings)
	s.mu.Unlock()
	if again {
		return nil
	}
	s.device.release(all...)
	s.pin.Close() // nobody uses it: what comes finds the store closed
	if s.owns {
		return s.device.Close()
	}
	return nil
}
