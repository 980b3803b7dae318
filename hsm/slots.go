package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Slot is what a module reports about one of its slots and the token in it.
type Slot struct {
	ID                   uint
	Description          string
	Label, Model, Serial string
	Manufacturer         string // of the token
	Flags                uint   // of the token (CK_TOKEN_INFO)
	Err                  error  // why the token cannot be read, or nil
}

// Empty reports whether the slot has no token. It is false if the token cannot be read.
func (s *Slot) Empty() bool { return answered(s.Err, pkcs11.CKR_TOKEN_NOT_PRESENT) }

// Initialized reports whether the slot has a token that is not blank.
func (s *Slot) Initialized() bool { return isInitialized(s.Flags) }

// isInitialized judges the flags of a token. One whose user has a PIN is not blank, whether or not the
// module says so: to make one in its place would destroy its keys.
func isInitialized(flags uint) bool {
	return flags&(pkcs11.CKF_TOKEN_INITIALIZED|pkcs11.CKF_USER_PIN_INITIALIZED) != 0
}

// Slots lists the slots of the module at path, with and without a token. It needs no login.
// initialize is that of [Config]. If the module does not load or answer the error is
// keystore.ErrUnavailable.
func Slots(path, initialize string) (all []Slot, err error) {
	mod, err := useModule(path, initialize)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, mod.release(defaultWait)) }()
	err = mod.inside(defaultWait, func() error {
		ids, err := mod.list(everySlot)
		for _, id := range ids {
			all = append(all, mod.slot(id))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module %s: %w", path, err)
	}
	return all, nil
}

func (m *module) slot(id uint) Slot {
	description, err := m.slotInfo(id)
	s := Slot{ID: id, Description: description, Err: err}
	if err != nil {
		return s
	}
	info, err := m.tokenInfo(id)
	s.Label, s.Model, s.Serial, s.Manufacturer, s.Flags = info.Label, info.Model, info.Serial, info.ManufacturerID, info.Flags
	s.Err = err
	return s
}

// Unread names a slot whose token cannot be read, and why.
func (s *Slot) Unread() error {
	if s.Err == nil || s.Empty() {
		return nil
	}
	return fmt.Errorf("slot %d: %w: %w", s.ID, s.Err, keystore.ErrUnavailable)
}
