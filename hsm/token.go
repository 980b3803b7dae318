package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// InitToken makes a PKCS #11 token in a free slot of the module at path, with
// the PIN of the security officer and that of the user. Programs of one user that
// make tokens at the same time take turns.
func InitToken(path, label string, soPIN, userPIN []byte) error {
	if len(label) == 0 || len(label) > 32 {
		return fmt.Errorf("hsm: token label %q must be 1 to 32 bytes long", label)
	}
	unlock, err := lockTokens()
	if err != nil {
		return err
	}
	defer unlock()
	mod, err := useModule(path, "") // after that: modules list their tokens when they are initialized
	if err != nil {
		return err
	}
	err = mod.alone(defaultWait, func() error { return mod.initToken(label, soPIN, userPIN) })
	return errors.Join(err, mod.release(defaultWait))
}

// initToken runs alone in the module, so that no two take the same slot. If there is a
// token with the label whose user PIN was never set, its initialization was cut off, and
// is finished.
func (m *module) initToken(label string, soPIN, userPIN []byte) error {
	all, untold, err := m.tokens(false)
	if err = errors.Join(err, untold); err != nil {
		return err
	}
	label = strings.TrimRight(label, " ") // a label is filled up with blanks
	all = slices.DeleteFunc(all, func(t tokenInfo) bool { return t.Label != label })
	switch {
	case len(all) == 1 && all[0].Flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return m.setPIN(all[0], soPIN, userPIN)
	case len(all) > 0:
		return fmt.Errorf("hsm: PKCS #11 token %q: %w; choose another label", label, keystore.ErrExists)
	}
	blank, untold, err := m.tokens(true)
	switch {
	case err != nil:
		return err
	case len(blank) == 0 && untold != nil:
		return untold
	case len(blank) == 0:
		return fmt.Errorf("hsm: %s has no slot for a new token: %w", m.path, keystore.ErrUnavailable)
	}
	if err := checkPINs(blank[0], soPIN, userPIN); err != nil {
		return err // before anything is made
	}
	padded := [32]byte([]byte(fmt.Sprintf("%-32s", label)))
	if err := m.library.initToken(blank[0].slot, soPIN, padded); err != nil {
		return err
	}
	if err := m.setPIN(blank[0], soPIN, userPIN); err != nil {
		return fmt.Errorf("%w; the token %q exists without a user PIN: make it again with the same label and SO PIN to finish it", err, label)
	}
	return nil
}

// checkPINs judges the lengths of PINs. A token that states limits which no PIN keeps does not
// tell them.
func checkPINs(t tokenInfo, pins ...[]byte) error {
	if t.MaxPINLen == 0 || t.MinPINLen > t.MaxPINLen || t.MinPINLen == ^uint(0) {
		return nil
	}
	for _, pin := range pins {
		if n := uint(len(pin)); n < t.MinPINLen || n > t.MaxPINLen {
			return keystore.NoPINf("hsm: a PIN must be %d to %d bytes long", t.MinPINLen, t.MaxPINLen)
		}
	}
	return nil
}

// setPIN sets the user PIN for the first time.
func (m *module) setPIN(t tokenInfo, soPIN, userPIN []byte) error {
	if err := checkPINs(t, soPIN, userPIN); err != nil {
		return err
	}
	session, err := m.openSession(t.slot)
	if err != nil {
		return err
	}
	// Nobody else can be logged in to a token without a user PIN.
	defer m.closeSession(session)
	if err := m.login(session, t, SecurityOfficer, soPIN); err != nil {
		return err
	}
	if err := m.initPIN(session, userPIN); err != nil {
		return err
	}
	now, err := m.tokenInfo(t.slot)
	if err == nil && now.Flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0 {
		err = &Error{Function: "C_InitPIN", garbage: "CKR_OK, and the user has no PIN"}
	}
	return err
}

// Tokens lists the initialized PKCS #11 tokens of the module at path. A token that cannot
// be read is an error, returned along with the others.
func Tokens(path string) ([]URI, error) {
	mod, err := useModule(path, "")
	if err != nil {
		return nil, err
	}
	var uris []URI
	err = mod.inside(defaultWait, func() error {
		all, untold, err := mod.tokens(false)
		for _, t := range all {
			uris = append(uris, URI{Token: t.Label, Serial: t.Serial, Model: t.Model, Manufacturer: t.ManufacturerID, ModulePath: path})
		}
		return errors.Join(err, untold)
	})
	return uris, errors.Join(err, mod.release(defaultWait))
}
