package fleet

import (
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// A PSK is the bytes of a pre-shared key set. No verb of package fmt, and no JSON, shows
// them. The caller must wipe them.
type PSK struct {
	Encryption []byte `json:"-"` // 16 bytes
	MAC        []byte `json:"-"` // 32 bytes
	Wrapping   []byte `json:"-"` // 16 bytes
}

// Format implements fmt.Formatter.
func (PSK) Format(w fmt.State, _ rune) { io.WriteString(w, "pre-shared keys") }

// A WrappedPSK is a pre-shared key set in transit to one TPM, the only one that can
// unwrap it. It is written with encoding/json and read with [ParseWrappedPSK]. It is not
// secret, but must come from the server unchanged: it does not say who made it.
type WrappedPSK struct {
	Identity   string     `json:"identity"` // see PSKIdentity
	Encryption WrappedKey `json:"encryption"`
	MAC        WrappedKey `json:"mac"`
	Revealing  WrappedKey `json:"revealing"` // the wrapping key, for key exchanges that unwrap to the process
}

// A WrappedKey is a keystore.Duplicated in JSON form.
type WrappedKey struct {
	Public    []byte `json:"public"`    // TPMT_PUBLIC
	Duplicate []byte `json:"duplicate"` // contents of the TPM2B_PRIVATE
	Seed      []byte `json:"seed"`      // contents of the TPM2B_ENCRYPTED_SECRET
}

// ParseWrappedPSK reads a WrappedPSK, a JSON object. An unknown member is an error. Only
// the TPM can check whether the keys are valid.
func ParseWrappedPSK(text []byte) (*WrappedPSK, error) { return parse(text, &WrappedPSK{}) }

// WrapPSK wraps the keys of an identity for the TPM with that storage key
// (TPMT_PUBLIC). Check first that the key is in the device's TPM: [CertifiedKey.Check].
// The errors are those of [tpm.Duplicate].
func WrapPSK(identity string, storage []byte, keys PSK) (*WrappedPSK, error) {
	set := &WrappedPSK{Identity: identity}
	for _, k := range []struct {
		to        *WrappedKey
		algorithm keystore.Algorithm
		raw       []byte
	}{
		{&set.Encryption, keystore.AES128CBC, keys.Encryption},
		{&set.MAC, keystore.HMACSHA256, keys.MAC},
		{&set.Revealing, keystore.AESReveal128, keys.Wrapping},
	} {
		d, err := tpm.Duplicate(storage, k.algorithm, k.raw)
		if err != nil {
			return nil, err
		}
		*k.to = WrappedKey(d)
	}
	return set, nil
}

// An OtherDeviceError means that keys belong to a device other than this one.
type OtherDeviceError struct {
	Identity string // of the keys
	Device   string // the name of this device
}

// Error implements error.
func (e *OtherDeviceError) Error() string {
	return fmt.Sprintf("the keys are those of %q, and this device is %q", e.Identity, e.Device)
}

// An ImportedKey is a provisioned key that ImportPSK made.
type ImportedKey struct {
	Label     string
	Algorithm keystore.Algorithm
	Version   uint32
}

// ImportPSK imports a key set into the TPM, as the next versions of the provisioned keys
// IDENTITY-encryption, IDENTITY-mac and IDENTITY-revealing: all of them, or none.
//
// Keys whose identity is not the [PSKIdentity] of this device are an
// [OtherDeviceError]; keys that are damaged, or were wrapped for another TPM, are
// keystore.ErrBadData. The other errors are those of tpm.Store.ImportDuplicate and
// identity.Device.Credentials.
func (d *Device) ImportPSK(set *WrappedPSK) ([]ImportedKey, error) {
	name, _, err := d.Identity.Credentials()
	if err != nil {
		return nil, err
	}
	if set.Identity != PSKIdentity(name) {
		return nil, &OtherDeviceError{set.Identity, name}
	}
	var done []ImportedKey
	for _, k := range []struct {
		role      keystore.Role
		algorithm keystore.Algorithm
		wrapped   WrappedKey
	}{
		{keystore.RolePSKEncryption, keystore.AES128CBC, set.Encryption},
		{keystore.RolePSKMAC, keystore.HMACSHA256, set.MAC},
		{keystore.RolePSKRevealing, keystore.AESReveal128, set.Revealing},
	} {
		label := k.role.Label(set.Identity)
		v, err := d.Store.ImportDuplicate(label, k.algorithm, keystore.Duplicated(k.wrapped))
		if err != nil {
			return nil, errors.Join(err, d.takeBack(done))
		}
		done = append(done, ImportedKey{label, k.algorithm, v.Number})
	}
	return done, nil
}

// takeBack destroys the keys of an incompletely imported set.
func (d *Device) takeBack(keys []ImportedKey) error {
	var errs []error
	for _, k := range keys {
		errs = append(errs, d.Store.Destroy(k.Label, k.Version))
	}
	return errors.Join(errs...)
}
