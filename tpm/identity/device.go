package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// A Device is the identity of this machine: its keys in a TPM, and a state file with
// their blobs and certificates. It is safe for concurrent use. Every method reads the
// file again, since another process may have renewed the identity. Init, Enroll and Renew
// take turns, also with those of other processes, by a lock of the file PATH.lock; the other
// methods wait for none of them, only for the TPM.
type Device struct {
	// PCRs are the platform configuration registers (0 to 23, in the SHA-256 bank) that
	// are quoted when the device enrolls. It may be empty.
	PCRs []uint
	// EventLog is the event log of this start (TCG PC Client Platform Firmware Profile,
	// section 10), which the kernel provides as binary_bios_measurements. It is sent with
	// the PCRs to an authority that asks for it. It may be empty.
	EventLog []byte
	Time     func() time.Time // nil means time.Now

	store *tpm.Store
	path  string
	turn  chan struct{} // holds a value while a method changes the file
}

// Open reads the state file at path, which need not exist; a damaged one is [ErrDamaged].
// The keys are under the storage key of the store, which the caller must close after the
// last use of the Device.
func Open(store *tpm.Store, path string) (*Device, error) {
	d := &Device{store: store, path: path, turn: make(chan struct{}, 1)}
	if _, err := d.read(); err != nil {
		return nil, err
	}
	return d, nil
}

// read returns the keys in the file as it is now. Each method has its own copy of them.
func (d *Device) read() (keyring, error) {
	s, sum, err := readState(d.path)
	return keyring{store: d.store, file: &file{path: d.path, state: s, sum: sum}}, err
}

// readReady is read for methods that need the keys that Init makes.
func (d *Device) readReady() (keyring, error) {
	k, err := d.read()
	if err == nil {
		err = k.file.state.ready()
	}
	return k, err
}

// longestTurn is how long to wait for another process that enrolls the device.
const longestTurn = 3 * time.Minute

// takeTurn waits until no other method, and no other process, changes the file; end lets the next
// one do so. An authority that heard of other keys in the meantime would take those of one of them
// for the present ones, and this machine those of another.
func (d *Device) takeTurn(ctx context.Context, progress func(string)) (end func(), err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("enroll: wait for an enrollment under way: %w", ctx.Err())
	}
	limited, cancel := context.WithTimeout(ctx, longestTurn)
	defer cancel()
	unlock, err := statefile.Take(limited, d.path+".lock", func() {
		report(progress, "waiting for another process that enrolls this device")
	})
	if err != nil {
		<-d.turn
		if err == statefile.ErrLocked {
			return nil, proof.Fail(ErrInUse, "%s %w", d.path, errors.Join(err, ctx.Err()))
		}
		return nil, fmt.Errorf("enroll: state file: %w", err)
	}
	return func() { unlock(); <-d.turn }, nil
}

func (d *Device) now() time.Time {
	if d.Time != nil {
		return d.Time()
	}
	return time.Now()
}

// Check checks that the TPM still has the identity. The error is [ErrOtherTPM],
// [ErrCleared], or an error of the TPM. The EK is not checked if making it needs an
// endorsement password that was not given: the other keys are sufficient.
func (d *Device) Check() error {
	k, err := d.readReady()
	if err != nil {
		return err
	}
	err = k.do(func(t transport.TPM) error { return k.withEK(t, func(ek) error { return nil }) })
	if closed := (*tpm.PasswordError)(nil); err != nil && (!errors.As(err, &closed) || closed.Err != nil) {
		return err
	}
	for _, b := range append([]tpm.Blob{*k.file.state.AK}, k.file.state.Keys...) {
		if err := k.loads(b); err != nil {
			return err
		}
	}
	return nil
}

// Diagnose finds out, from the EK and the storage key, why the store of an identity does
// not open. It returns [ErrOtherTPM], [ErrCleared], or nil if the storage key of the
// identity is in the TPM or can be made again there. path is the identity's state file.
func Diagnose(device *tpm.Device, path string) error {
	s, _, err := readState(path)
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		return err
	}
	err = device.Do(func(t transport.TPM) error {
		return s.EK.use(t, path, func(ek) error { return nil })
	})
	if err != nil {
		return err
	}
	return cleared(device.FindStorageKey(s.StorageKey))
}

// A Credential is an LDevID, ready for use.
type Credential struct {
	Algorithm   keystore.Algorithm
	Signer      crypto.Signer // SHA-256: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5
	Certificate *x509.Certificate
}

// Credentials returns the name of this device and its LDevIDs, each with its
// certificate if the authority issues certificates. Before the device is enrolled, the
// error is [ErrNotEnrolled].
func (d *Device) Credentials() (name string, list []Credential, err error) {
	k, err := d.read()
	if err != nil {
		return "", nil, err
	}
	return k.credentials()
}

// Next returns the LDevIDs of a renewal that was begun and not completed, without certificates.
// If only the answer of the authority was lost, it accepts these instead of the present ones.
func (d *Device) Next() (list []Credential, err error) {
	k, err := d.read()
	if err != nil {
		return nil, err
	}
	for _, b := range k.file.state.Next {
		s, err := k.signer(b)
		if err != nil {
			return nil, err
		}
		list = append(list, Credential{Algorithm: b.Algorithm, Signer: s})
	}
	return list, nil
}
