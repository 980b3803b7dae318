package identity

import (
	"crypto"
	"crypto/x509"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// A Device is the identity of this machine: its keys in a TPM and, in a file,
// what goes with them. It is safe for use by many goroutines. Every method reads
// the file anew, since another process may have renewed the identity.
type Device struct {
	// PCRs are the platform configuration registers (0 to 23, of the SHA-256
	// bank) that are quoted when the device enrolls. It may be empty.
	PCRs []uint
	Time func() time.Time // nil means time.Now

	mu sync.Mutex // held by every method
	keyring
}

// Open reads the state file at path, which need not exist. A damaged one is
// [ErrDamaged]. The keys are under the storage key of the store, which the caller
// closes when the Device is no longer used.
func Open(store *tpm.Store, path string) (*Device, error) {
	f := &file{path: path}
	if err := f.read(); err != nil {
		return nil, err
	}
	return &Device{keyring: keyring{store: store, file: f}}, nil
}

// acquire begins a method, which ends with mu.Unlock.
func (d *Device) acquire() error {
	d.mu.Lock()
	err := d.file.read()
	if err != nil {
		d.mu.Unlock()
	}
	return err
}

// acquireReady is acquire for what needs the keys that Init makes.
func (d *Device) acquireReady() error {
	if err := d.acquire(); err != nil {
		return err
	}
	err := d.file.state.ready()
	if err != nil {
		d.mu.Unlock()
	}
	return err
}

func (d *Device) now() time.Time {
	if d.Time != nil {
		return d.Time()
	}
	return time.Now()
}

// Check asks the TPM whether the identity is still there: [ErrOtherTPM],
// [ErrCleared], or what the TPM says.
func (d *Device) Check() error {
	if err := d.acquireReady(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	err := d.do(func(t transport.TPM) error { return d.withEK(t, func(tpm2.NamedHandle) error { return nil }) })
	if err != nil {
		return err
	}
	for _, b := range append([]tpm.Blob{*d.file.state.AK}, d.file.state.Keys...) {
		if err := d.loads(b); err != nil {
			return err
		}
	}
	return nil
}

// Diagnose tells why the store of an identity does not open, as far as the EK and
// the storage key show it: [ErrOtherTPM], [ErrCleared], or nil where the storage
// key of the identity is there.
func Diagnose(device *tpm.Device, path string) error {
	s, _, err := readState(path)
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		return err
	}
	err = device.Do(func(t transport.TPM) error {
		return useEK(t, s.EK.Kind, func(_ tpm2.NamedHandle, public []byte) error { return checkEK(&s, public, path) })
	})
	if err != nil {
		return err
	}
	_, err = device.FindPersistent(s.StorageKey)
	return cleared(err)
}

// A Credential is an LDevID that can be used.
type Credential struct {
	Algorithm   keystore.Algorithm
	Signer      crypto.Signer // SHA-256: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5
	Certificate *x509.Certificate
}

// Credentials returns the name of this device and its LDevIDs, each with its
// certificate if the authority issues any. Before the device is enrolled they
// are [ErrNotEnrolled].
func (d *Device) Credentials() (name string, list []Credential, err error) {
	if err := d.acquire(); err != nil {
		return "", nil, err
	}
	defer d.mu.Unlock()
	return d.credentials()
}
