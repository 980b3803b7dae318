package hsm

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An access is the token that a store uses and the PIN that opens it, whatever sessions
// are open.
type access struct {
	library
	mod *module
	uri *URI
	pin *pin

	noted   func(give func() error) error // Config.Login
	serial  atomic.Pointer[string]        // of the token that was opened first
	refused atomic.Pointer[error]         // the token's answer to a wrong PIN
	unclear atomic.Int64                  // times in a row that its answer to the PIN was unclear
}

// errAmbiguousToken is a URI that names several tokens.
var errAmbiguousToken = fmt.Errorf("several PKCS #11 tokens match: %w", keystore.ErrNotFound)

// choose finds the one token that the URI names: its slot changes when a module is
// initialized again.
func (a *access) choose() (tokenInfo, error) {
	all, untold, err := a.mod.tokens(false)
	if err != nil {
		return tokenInfo{}, err
	}
	var found []tokenInfo
	for _, t := range all {
		if a.uri.matches(t) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return tokenInfo{}, fmt.Errorf("hsm: %s: %w: %s", a.uri, errAmbiguousToken, apart(found))
	case untold != nil:
		return tokenInfo{}, fmt.Errorf("hsm: no readable PKCS #11 token matches %s, and some cannot be read: %w", a.uri, untold)
	}
	return tokenInfo{}, &NoTokenError{URI: a.uri.String(), Tokens: labels(all)}
}

func labels(all []tokenInfo) []string {
	var names []string
	for _, t := range all {
		names = append(names, fmt.Sprintf("%q serial %s", t.Label, safetext.String(t.Serial)))
	}
	return names
}

// apart lists tokens that a URI matches, and says which attribute tells them apart: some modules
// give all the same serial number, or none.
func apart(found []tokenInfo) string {
	names, serials := labels(found), map[string]bool{"": true}
	for _, t := range found {
		serials[t.Serial] = true
	}
	if len(serials) > len(found) {
		return fmt.Sprintf("%s; add ;serial= to the URI", strings.Join(names, ", "))
	}
	for i, t := range found {
		names[i] += fmt.Sprintf(" slot %d", t.slot)
	}
	return fmt.Sprintf("%s; add ;slot-id= to the URI", strings.Join(names, ", "))
}

// readPIN reads the PIN where the token wants one and does not ask by itself.
func (a *access) readPIN(source PINSource, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 || token.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil
	}
	if source == "" {
		source = PINSource(a.uri.PINSource)
	}
	if source == "" {
		return keystore.NoPINf("hsm: no PIN source for the PKCS #11 token %q: name one, such as file:/path or prompt", token.Label)
	}
	var err error
	a.pin, err = source.read()
	return err
}

var errReplaced = errors.New("it was replaced by another token")

// checkSame refuses a token that was put in place of the first one.
func (a *access) checkSame(token tokenInfo) error {
	if first := a.serial.Load(); first != nil && *first != token.Serial {
		return fmt.Errorf("hsm: the PKCS #11 token %q has the serial number %s, and had %s: %w: %w", token.Label, safetext.String(token.Serial), safetext.String(*first), keystore.ErrUnavailable, errReplaced)
	}
	return nil
}

// logIn logs in, which is for all sessions of the process. A PIN that was
// refused once is never given again: a token counts, and locks itself.
func (a *access) logIn(session uint, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if refused := a.refused.Load(); refused != nil {
		return *refused
	}
	if a.pin == nil && token.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH == 0 {
		return fmt.Errorf("hsm: the PKCS #11 token %q requires a PIN now, and did not when it was opened: %w", token.Label, keystore.ErrUnavailable)
	}
	err := a.give(session, token)
	if errors.Is(err, keystore.ErrUnclear) {
		a.unclear.Add(1)
		return err
	}
	var e *Error
	switch {
	case err == nil, errors.As(err, &e) && e.Code == pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		a.unclear.Store(0)
		return nil // already by another store of this process; then the PIN is not looked at
	case answered(err, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN), answered(err, pkcs11.CKR_USER_TOO_MANY_TYPES):
		return fmt.Errorf("%w: the security officer is logged in to the token, and only one can be: end what the officer does", err)
	case classOf(err) != classPIN:
		return err
	}
	notSet := e.Code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED // so none was counted
	err = fmt.Errorf("%w; %s", err, a.triesLeft(token.slot, e.Code))
	if !notSet {
		a.refused.Store(&err)
	}
	return err
}

// give gives the PIN to the token.
func (a *access) give(session uint, token tokenInfo) error {
	login := func() error { return a.login(session, token, User, a.pin.bytes()) }
	if a.noted != nil {
		return a.noted(login)
	}
	return login()
}

// checkLogin returns an error if the session is not logged in to a token that requires it.
func (a *access) checkLogin(session uint, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	in, err := a.loggedIn(session)
	if err == nil && !in {
		err = &Error{Function: "C_GetSessionInfo", Code: pkcs11.CKR_USER_NOT_LOGGED_IN}
	}
	return err
}

// triesLeft says what follows from the code that the token answered to a PIN, and from what it
// reports of the PIN: many tokens report nothing, or set no flag for what the code says.
func (a *access) triesLeft(slot, code uint) string {
	info, err := a.tokenInfo(slot)
	switch {
	case code == pkcs11.CKR_PIN_LOCKED, info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "the PIN is LOCKED: the token's security officer sets a new one"
	case code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return "the security officer sets the first one"
	case code == pkcs11.CKR_PIN_EXPIRED:
		return "the token requires a new PIN first"
	case err != nil:
		return "check the PIN before you try again"
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "ONE try is left before the token locks the PIN: check it first"
	case info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "it was not tried again: the token counts wrong PINs and may lock: check the PIN first"
	}
	return "it was not tried again: check the PIN"
}
