package hsm

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Role is one of the two roles of a token that have a PIN (PKCS #11 v2.40, section 2.4).
type Role uint

const (
	SecurityOfficer Role = pkcs11.CKU_SO   // makes the token and sets the user's PIN
	User            Role = pkcs11.CKU_USER // uses its keys
)

// String names the role.
func (r Role) String() string {
	if r == SecurityOfficer {
		return "security officer"
	}
	return "user"
}

// PINs are what a token reports about its PINs (CK_TOKEN_INFO).
type PINs struct {
	Label, Serial string // of the token
	Min, Max      uint   // bytes that a PIN may have

	flags uint
}

// PINsOf asks the token that the URI names, without a login.
func PINsOf(uri *URI) (p PINs, err error) {
	err = onToken(uri, func(_ *module, t tokenInfo) error {
		p = PINs{t.Label, t.Serial, t.MinPINLen, t.MaxPINLen, t.Flags}
		return nil
	})
	return p, err
}

// Set reports whether the user has a PIN.
func (p PINs) Set() bool { return p.flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0 }

// Pad reports whether the token asks for PINs itself (a protected authentication path);
// pass nil PINs then.
func (p PINs) Pad() bool { return p.flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 }

// A PINState is what a token reports about wrong tries of a PIN. Many tokens report
// nothing.
type PINState int

const (
	PINFine        PINState = iota
	PINToBeChanged          // the token permits nothing else until then
	PINCountLow             // a wrong PIN was given after the last right one
	PINFinalTry             // one more wrong PIN locks it
	PINLocked               // even the right PIN is refused
)

// State returns the worst state that the token reports for the PIN of a role.
func (p PINs) State(r Role) PINState {
	states := []struct {
		user, so uint
		state    PINState
	}{
		{pkcs11.CKF_USER_PIN_LOCKED, pkcs11.CKF_SO_PIN_LOCKED, PINLocked},
		{pkcs11.CKF_USER_PIN_FINAL_TRY, pkcs11.CKF_SO_PIN_FINAL_TRY, PINFinalTry},
		{pkcs11.CKF_USER_PIN_COUNT_LOW, pkcs11.CKF_SO_PIN_COUNT_LOW, PINCountLow},
		{pkcs11.CKF_USER_PIN_TO_BE_CHANGED, pkcs11.CKF_SO_PIN_TO_BE_CHANGED, PINToBeChanged},
	}
	for _, s := range states {
		flag := s.user
		if r == SecurityOfficer {
			flag = s.so
		}
		if p.flags&flag != 0 {
			return s.state
		}
	}
	return PINFine
}

// ResetPIN sets the user PIN as the security officer (C_InitPIN), even if it was never set
// or is locked. Keys are kept. It fails while this process has a store open on the token;
// stores of other processes continue.
func ResetPIN(uri *URI, soPIN, pin []byte) error {
	return onToken(uri, func(m *module, t tokenInfo) error {
		if err := checkNewPIN(t, pin); err != nil {
			return err
		}
		return m.changing(t, SecurityOfficer, soPIN, func(session uint) error {
			return m.initPIN(session, pin)
		}, User, pin)
	})
}

// ChangePIN changes the PIN of a role, given the old one (C_SetPIN). Open stores continue
// with their sessions.
func ChangePIN(uri *URI, r Role, old, pin []byte) error {
	return onToken(uri, func(m *module, t tokenInfo) error {
		if err := checkNewPIN(t, pin); err != nil {
			return err
		}
		return m.changing(t, r, old, func(session uint) error {
			return m.library.changePIN(session, old, pin)
		}, r, pin)
	})
}

// CheckPIN logs in as a role, and out again. For the security officer it fails while this
// process has a store open on the token.
func CheckPIN(uri *URI, r Role, pin []byte) (err error) {
	for try := range 8 { // while another process logs in, SoftHSM fails
		err = onToken(uri, func(m *module, t tokenInfo) error {
			return m.loggedInAs(t, r, pin, func(uint) error { return nil })
		})
		if !passing(err) {
			return err
		}
		time.Sleep(time.Duration(10+20*try) * time.Millisecond)
	}
	return err
}

// onToken runs op in the module alone, with the token that the URI names, and while no other process of
// this user changes PINs or makes tokens.
func onToken(uri *URI, op func(*module, tokenInfo) error) error {
	path, err := uri.module()
	if err != nil {
		return err
	}
	unlock, err := lockTokens()
	if err != nil {
		return err
	}
	defer unlock()
	mod, err := useModule(path, uri.Initialize)
	if err != nil {
		return err
	}
	err = mod.alone(defaultWait, func() error {
		t, err := (&access{mod: mod, uri: uri}).choose()
		if err != nil {
			return err
		}
		return op(mod, t)
	})
	return errors.Join(err, mod.release(defaultWait))
}

// checkNewPIN judges a PIN that is chosen. Nil means that the token asks for it.
func checkNewPIN(t tokenInfo, pin []byte) error {
	if pin == nil && t.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil
	}
	return checkPINs(t, pin)
}

// changing logs in, lets op change a PIN, and tries the new one.
func (m *module) changing(t tokenInfo, login Role, pin []byte, op func(session uint) error, tried Role, changed []byte) error {
	err := m.loggedInAs(t, login, pin, op)
	var e *Error
	if errors.As(err, &e) && (e.Function == "C_SetPIN" || e.Function == "C_InitPIN") && e.class() != classPIN {
		return fmt.Errorf("%w; it is not known which PIN is valid now: try the new one first, and each only once", err)
	}
	if e != nil && e.Function == "C_CloseSession" {
		return fmt.Errorf("%w; the PIN was changed before that", err)
	}
	if err != nil || changed == nil {
		return err
	}
	err = m.loggedInAs(t, tried, changed, func(uint) error { return nil })
	if err != nil {
		return fmt.Errorf("hsm: the token accepted the new PIN, but does not log in with it: %w", err)
	}
	return nil
}

// loggedInAs runs op in a session of a role. Its end is that of the login, unless others in
// this process have sessions with the token.
func (m *module) loggedInAs(t tokenInfo, r Role, pin []byte, op func(session uint) error) (err error) {
	session, err := m.openSession(t.slot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.closeSession(session)) }()
	err = m.login(session, t, r, pin)
	if answered(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) || answered(err, pkcs11.CKR_PIN_EXPIRED) {
		err = nil // by a store of this process; or it wants another PIN, which op gives it
	}
	if errors.Is(err, keystore.ErrPIN) {
		return m.refusedPIN(t.slot, r, err)
	}
	if err != nil {
		return err
	}
	return op(session)
}

// refusedPIN says what a token reports after a wrong PIN of a role.
func (m *module) refusedPIN(slot uint, r Role, err error) error {
	next := "check it before you try again"
	info, untold := m.tokenInfo(slot)
	switch state := (PINs{flags: info.Flags}).State(r); {
	case state == PINLocked, answered(err, pkcs11.CKR_PIN_LOCKED):
		next = "it is LOCKED now"
	case state == PINFinalTry:
		next = "ONE try is left before the token locks it: check it first"
	case state == PINCountLow:
		next = "it was not tried again: the token counts wrong PINs and may lock: check it first"
	}
	return errors.Join(fmt.Errorf("%w: the PIN of the %s; %s", err, r, next), untold)
}
