package tpm

import (
	"fmt"
	"io"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config names a TPM and its keys.
type Config struct {
	// URI names the TPM and the state file. See URI for the grammar.
	URI string
	// PIN is the authorization value of provisioned keys, 1 to 32 bytes without a zero
	// byte; empty means none. Keys made by a store with a PIN need it, and a wrong PIN
	// counts toward the TPM's dictionary attack protection. Session keys never have one.
	// The store keeps a copy in locked memory until it is closed; the caller must wipe
	// this one. No verb of package fmt, and no JSON, shows it.
	PIN []byte `json:"-"`
	// Passwords are the sources of the passwords of the TPM's hierarchies.
	Passwords Passwords
}

// Format implements fmt.Formatter.
func (c Config) Format(w fmt.State, _ rune) { io.WriteString(w, "keys of "+c.URI) }

// A Store holds the keys under one storage key of a TPM. It is a [keystore.Store],
// [keystore.Importer], [keystore.RandomSource] and [keystore.Admin], and safe for
// concurrent use.
type Store struct {
	owns        bool              // Close closes the device
	pin         *lockedmem.Buffer // nil if none
	storage     *storage
	sessionKeys sessionKeys
	provisioned provisionedKeys
	generator
}

var (
	_ keystore.Store    = (*Store)(nil)
	_ keystore.Importer = (*Store)(nil)
	_ keystore.Admin    = (*Store)(nil)

	_ keystore.RandomSource = (*Store)(nil)
)

// Provider describes where the keys of a Store are.
func Provider() keystore.Provider { return keystore.Provider{Name: "tpm", TPM: true} }

// OpenStore opens the store that Init made. The error is [keystore.ErrNotFound] if
// there is no state file, [keystore.ErrForeign] if it belongs to another TPM or to
// this one before it was cleared, [keystore.ErrBadData] if it is damaged, and
// [keystore.ErrUnavailable] if the TPM cannot be reached.
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
	var s *Store
	if err = d.SetPasswords(c.Passwords); err == nil {
		s, err = open(d, StoreConfig{State: u.State, SRK: u.SRK, PIN: c.PIN, Owns: true})
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return s, nil
}

// A StoreConfig names the keys of a Device. PIN is as in Config.
type StoreConfig struct {
	State string // path of the state file
	SRK   uint32 // persistent handle of the storage key; 0 is the one in the state file, and for Init 0x81000001
	PIN   []byte `json:"-"`
	Owns  bool   // Close of the store also closes the Device
}

// Format implements fmt.Formatter.
func (c StoreConfig) Format(w fmt.State, _ rune) { io.WriteString(w, "keys of "+c.State) }

// OpenStore opens a store on a Device, with the errors of the function OpenStore. The
// caller must close the Device after the store, unless the store owns it. A Device may
// have several stores.
func (d *Device) OpenStore(c StoreConfig) (*Store, error) {
	pin, err := checkPIN(c.PIN)
	if err != nil {
		return nil, err
	}
	s, err := d.openStore(c, pin)
	if err != nil {
		pin.Close()
		return nil, err
	}
	s.owns = c.Owns
	return s, nil
}

func (d *Device) openStore(c StoreConfig, pin *lockedmem.Buffer) (*Store, error) {
	st, err := readState(c.State)
	if err != nil {
		return nil, err
	}
	root, err := openStorage(d, c.SRK, st.file.StorageKey)
	if err != nil {
		return nil, err
	}
	return newStore(root, st, pin), nil
}

func newStore(root *storage, st *state, pin *lockedmem.Buffer) *Store {
	s := &Store{pin: pin, storage: root, generator: generator{root}}
	s.sessionKeys.storage, s.sessionKeys.keys = root, map[*key]struct{}{}
	s.provisioned.storage, s.provisioned.pin, s.provisioned.state = root, pin, st
	s.provisioned.rings = s.provisioned.records(st.file.Keys, nil)
	return s
}

// checkPIN copies a PIN into locked memory. It refuses zero bytes: go-tpm and other
// programs mishandle them, and a TPM removes trailing ones.
func checkPIN(pin []byte) (*lockedmem.Buffer, error) {
	if len(pin) > sessionHash || slices.Contains(pin, 0) {
		return nil, keystore.NoPINf("tpm: the PIN of %d bytes contains a zero byte or is longer than %d bytes", len(pin), sessionHash)
	}
	if len(pin) == 0 {
		return nil, nil
	}
	return lockedmem.Copy(pin), nil
}

// StorageKey returns the handle where the storage key is expected, and its public area as
// pinned by the state file. Salt sessions with this, never with a public area that
// TPM2_ReadPublic returns.
func (s *Store) StorageKey() (tpm2.TPMHandle, *tpm2.TPMTPublic, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.storage.key.public)
	if err != nil {
		return 0, nil, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	return tpm2.TPMHandle(s.storage.key.places[0]), public, nil
}

// Device returns the Device under the store, for what package keystore does not cover.
func (s *Store) Device() *Device { return s.storage.device }

// Generate makes a session key or a session key pair. Its blob stays in the memory of the
// process, and it is loaded when used. It has no PIN.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if a == keystore.SealMAC256 {
		return nil, unsupported(a)
	}
	return s.make(a, made, nil)
}

// Import makes a session key from raw, which is sent to the TPM encrypted.
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

// With lets f use a key of this store in go-tpm commands, for example to certify it. f
// has exclusive use of the TPM, under the rules of [Device.Do].
func (s *Store) With(k keystore.Key, f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	own, err := ownKey(s, k)
	if err != nil {
		return err
	}
	return s.storage.lend(own.object, own.check, f)
}

// WithStorageKey lets f use the storage key, like With.
func (s *Store) WithStorageKey(f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return s.storage.lend(s.storage.key, s.storage.open, f)
}

// Live counts the open session keys. The second number, sessions in use, is always 0: all
// keys share one.
func (s *Store) Live() (objects, sessions int) { return s.sessionKeys.count(), 0 }

// Close closes every key of the store, and flushes them from the TPM.
func (s *Store) Close() error {
	s.provisioned.admin.Lock()
	defer s.provisioned.admin.Unlock()
	if s.storage.closed.Swap(true) {
		return nil
	}
	s.storage.device.release(append(s.sessionKeys.close(), s.provisioned.close()...)...)
	s.pin.Close() // not in use: later operations find the store closed
	if s.owns {
		return s.storage.device.Close()
	}
	return nil
}
