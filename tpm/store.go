package tpm

import (
	"fmt"
	"slices"

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
	owns        bool              // Close closes the device
	pin         *lockedmem.Buffer // nil: there is none
	storage     *storage
	sessionKeys sessionKeys
	provisioned provisionedKeys
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
	root, err := openStorage(d, st.file.StorageKey)
	if err != nil {
		return nil, err
	}
	return newStore(root, st, pin), nil
}

func newStore(root *storage, st *state, pin *lockedmem.Buffer) *Store {
	s := &Store{pin: pin, storage: root}
	s.sessionKeys.storage, s.sessionKeys.keys = root, map[*key]struct{}{}
	s.provisioned.storage, s.provisioned.pin, s.provisioned.state = root, pin, st
	s.provisioned.rings = s.provisioned.records(st.file.Keys, nil)
	return s
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
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.storage.key.public)
	if err != nil {
		return 0, nil, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	return tpm2.TPMHandle(s.storage.key.persistent), public, nil
}

// Device returns the Device under the store, for what a key store has no word
// for.
func (s *Store) Device() *Device { return s.storage.device }

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
	o, err := s.storage.create(a, from, nil, raw)
	if err != nil {
		return nil, err
	}
	return s.sessionKeys.adopt(a, o, false)
}

// With lets f use a key of this store by go-tpm commands: to certify it, or to
// prove where it is. f has the TPM for itself, under the rules of Device.Do.
func (s *Store) With(k keystore.Key, f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	own, err := ownKey(s, k)
	if err != nil {
		return err
	}
	return s.storage.lend(own.object, own.check, f)
}

// WithStorageKey lets f use the storage key, as With: to certify it.
func (s *Store) WithStorageKey(f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return s.storage.lend(s.storage.key, s.storage.open, f)
}

// Live counts the session keys that were not closed yet. The second number,
// sessions in use, is always 0: one is kept for all.
func (s *Store) Live() (objects, sessions int) { return s.sessionKeys.count(), 0 }

// Close closes every key of the store and takes them out of the TPM.
func (s *Store) Close() error {
	s.provisioned.admin.Lock()
	defer s.provisioned.admin.Unlock()
	if s.storage.closed.Swap(true) {
		return nil
	}
	s.storage.device.release(append(s.sessionKeys.close(), s.provisioned.close()...)...)
	s.pin.Close() // nobody uses it: what comes finds the store closed
	if s.owns {
		return s.storage.device.Close()
	}
	return nil
}
