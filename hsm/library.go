package hsm

// The functions of a module that are not on the path of a message: called
// through miekg/pkcs11, and counted.

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Places in the table of functions, as in cryptoki.h.
const (
	fnOpenSession, fnCloseSession, fnGetSessionInfo      = 12, 13, 15
	fnGetAttributeValue                                  = 24
	fnFindObjectsInit, fnFindObjects, fnFindObjectsFinal = 26, 27, 28
)

// told makes an error of miekg/pkcs11 one of this package.
func (l library) told(fn int, err error) error {
	l.calls[fn].Add(1)
	return fromMiekg(functionNames[fn], err)
}

func fromMiekg(function string, err error) error {
	var code pkcs11.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		return &Error{Function: function, Code: uint(code)}
	}
	return fmt.Errorf("hsm: %s: %w", function, err)
}

// openSession opens a session that may write: objects of the session too are
// refused by some modules in a read-only one.
func (l library) openSession(slot uint) (uint, error) {
	h, err := l.miekg.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	return uint(h), l.told(fnOpenSession, err)
}

func (l library) closeSession(session uint) error {
	return l.told(fnCloseSession, l.miekg.CloseSession(pkcs11.SessionHandle(session)))
}

// loggedIn reports whether the session is that of a user who is logged in.
func (l library) loggedIn(session uint) bool {
	info, err := l.miekg.GetSessionInfo(pkcs11.SessionHandle(session))
	if l.told(fnGetSessionInfo, err) != nil {
		return false
	}
	return info.State == pkcs11.CKS_RW_USER_FUNCTIONS || info.State == pkcs11.CKS_RO_USER_FUNCTIONS
}

// find returns every object that has the attributes.
func (l library) find(session uint, template ...*pkcs11.Attribute) ([]uint, error) {
	h := pkcs11.SessionHandle(session)
	if err := l.told(fnFindObjectsInit, l.miekg.FindObjectsInit(h, template)); err != nil {
		return nil, err
	}
	var all []uint
	for {
		some, _, err := l.miekg.FindObjects(h, 256)
		if err := l.told(fnFindObjects, err); err != nil {
			l.miekg.FindObjectsFinal(h)
			return nil, err
		}
		if len(some) == 0 {
			break
		}
		for _, o := range some {
			all = append(all, uint(o))
		}
	}
	return all, l.told(fnFindObjectsFinal, l.miekg.FindObjectsFinal(h))
}

// attribute reads one attribute of an object. Asked for alone, one that the
// module does not know spoils no other.
func (l library) attribute(session, object, attribute uint) ([]byte, error) {
	all, err := l.miekg.GetAttributeValue(pkcs11.SessionHandle(session), pkcs11.ObjectHandle(object),
		[]*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err := l.told(fnGetAttributeValue, err); err != nil {
		return nil, err
	}
	l.seen.note(all[0].Value)
	return all[0].Value, nil
}
