package hsm

// The functions of a module that are not on the path of a message, one C_ call
// each. A module's answers are checked against bounds before they are used: a count or a
// length can be garbage.

// #cgo noescape msl_find_init
// #cgo nocallback msl_find_init
// #cgo noescape msl_attributes
// #cgo nocallback msl_attributes
// #include <stdlib.h>
// #include "operation.h"
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Bounds on what a module may report.
const (
	maxSlots   = 1024
	maxObjects = 1 << 20 // that one search finds
	maxValue   = 1 << 16 // bytes of an attribute
)

// errGarbage is an impossible answer.
func errGarbage(function string, n uint) error {
	return fmt.Errorf("hsm: %s: the module answers a count or length of %d: %w", function, n, keystore.ErrUnavailable)
}

// initialize calls C_Initialize, with a text for the module if there is one.
func (l tokenCalls) initialize(text string) error {
	var reserved *C.char
	if text != "" {
		reserved = C.CString(text)
		defer C.free(unsafe.Pointer(reserved))
	}
	defer keepOwn()()
	return l.count(C.msl_initialize(l.list, reserved), C.FN_Initialize)
}

func (l tokenCalls) finalize() error { return l.count(C.msl_finalize(l.list), C.FN_Finalize) }

// Which slots are listed: CK_BBOOLs.
const (
	everySlot  = 0
	withTokens = 1
)

// slots lists the slots with a token in them, or every one.
func (l tokenCalls) slots(which byte) ([]uint, error) {
	r := C.msl_slots(l.list, C.ck_byte(which), nil, 0)
	if err := l.count(r, C.FN_GetSlotList); err != nil {
		return nil, err
	}
	if r.value == C.UNWRITTEN {
		return nil, unwritten("C_GetSlotList")
	}
	var list [maxSlots]C.ck_ulong
	for i := range list {
		list[i] = C.UNWRITTEN
	}
	r = C.msl_slots(l.list, C.ck_byte(which), &list[0], maxSlots)
	if err := l.count(r, C.FN_GetSlotList); err != nil {
		return nil, err
	}
	if r.value > maxSlots {
		return nil, errGarbage("C_GetSlotList", uint(r.value))
	}
	var slots []uint
	for _, slot := range list[:r.value] {
		if slot == C.UNWRITTEN {
			return nil, unwritten("C_GetSlotList")
		}
		if !slices.Contains(slots, uint(slot)) { // which a module may list twice
			slots = append(slots, uint(slot))
		}
	}
	return slots, nil
}

// slotInfo returns the description of a slot (CK_SLOT_INFO).
func (l tokenCalls) slotInfo(slot uint) (string, error) {
	var info C.ck_slot_info
	err := l.count(C.msl_slot_info(l.list, C.ck_ulong(slot), &info), C.FN_GetSlotInfo)
	if err = written("C_GetSlotInfo", info.flags, err); err != nil {
		return "", err
	}
	return padded(&info.description[0], len(info.description)), nil
}

// written is the error of a call, or that of a module which answered CKR_OK and left the number
// as it was.
func written(function string, n C.ck_ulong, err error) error {
	if err == nil && n == C.UNWRITTEN {
		return unwritten(function)
	}
	return err
}

// padded is a text without the blanks at its end, for which some modules have zeros.
func padded(first *C.ck_byte, n int) string {
	return strings.TrimRight(string(unsafe.Slice((*byte)(unsafe.Pointer(first)), n)), " \x00")
}

// A tokenInfo is what a module says about the PKCS #11 token in a slot
// (CK_TOKEN_INFO). Its texts are without the blanks at their ends.
type tokenInfo struct {
	slot                                 uint
	Label, ManufacturerID, Model, Serial string
	Flags                                uint
	MaxSessions, MaxRwSessions           uint
	MinPINLen, MaxPINLen                 uint
}

func (l tokenCalls) tokenInfo(slot uint) (tokenInfo, error) {
	var info C.ck_token_info
	err := l.count(C.msl_token_info(l.list, C.ck_ulong(slot), &info), C.FN_GetTokenInfo)
	if err = written("C_GetTokenInfo", info.flags, err); err != nil {
		return tokenInfo{}, err
	}
	return tokenInfo{
		slot: slot, Label: padded(&info.label[0], len(info.label)), ManufacturerID: padded(&info.manufacturer[0], len(info.manufacturer)),
		Model: padded(&info.model[0], len(info.model)), Serial: padded(&info.serial[0], len(info.serial)),
		Flags: uint(info.flags), MaxSessions: uint(info.max_sessions), MaxRwSessions: uint(info.max_rw_sessions),
		MinPINLen: uint(info.min_pin), MaxPINLen: uint(info.max_pin),
	}, nil
}

// wraps reports whether a token says that it wraps and unwraps with a mechanism.
func (l tokenCalls) wraps(slot, mechanism uint) (bool, error) {
	r := C.msl_mechanism_flags(l.list, C.ck_ulong(slot), C.ck_ulong(mechanism))
	err := written("C_GetMechanismInfo", r.value, l.count(r, C.FN_GetMechanismInfo))
	if classOf(err) == classUnsupported {
		return false, nil
	}
	const both = C.CKF_WRAP | C.CKF_UNWRAP
	return err == nil && r.value&both == both, err
}

func (l tokenCalls) openSession(slot uint) (uint, error) {
	r := C.msl_open_session(l.list, C.ck_ulong(slot))
	err := l.count(r, C.FN_OpenSession)
	if err == nil && r.value == 0 {
		err = unwritten("C_OpenSession")
	}
	return uint(r.value), err
}

func (l tokenCalls) closeSession(session uint) error {
	return l.count(C.msl_close_session(l.list, C.ck_ulong(session)), C.FN_CloseSession)
}

// closeTwice closes a session, and tries once more if that fails: other programs lack the
// sessions that stay open. It reports whether the session is closed.
func (l tokenCalls) closeTwice(session uint) bool {
	for range 2 {
		if err := l.closeSession(session); err == nil || classOf(err) == classSession {
			return true
		}
	}
	return false
}

// loggedIn reports whether the session is that of a user who is logged in.
func (l tokenCalls) loggedIn(session uint) (bool, error) {
	r := C.msl_session_state(l.list, C.ck_ulong(session))
	if err := written("C_GetSessionInfo", r.value, l.count(r, C.FN_GetSessionInfo)); err != nil {
		return false, err
	}
	return r.value == pkcs11.CKS_RW_USER_FUNCTIONS || r.value == pkcs11.CKS_RO_USER_FUNCTIONS, nil
}

// find returns every object that has the attributes. A search that fails is
// ended, so that the session can be used again.
func (l objectCalls) find(session uint, attributes template) ([]uint, error) {
	t, n := mem(attributes)
	if err := l.count(C.msl_find_init(l.list, C.ck_ulong(session), t, n), C.FN_FindObjectsInit); err != nil {
		return nil, err
	}
	all, err := l.found(session)
	end := l.count(C.msl_find_final(l.list, C.ck_ulong(session)), C.FN_FindObjectsFinal)
	if err = errors.Join(err, end); err != nil {
		return nil, err
	}
	return all, nil
}

// found takes what a search finds, until it finds nothing more: an answer may be shorter than
// was asked for before that (PKCS #11 v2.40, C_FindObjects).
func (l objectCalls) found(session uint) ([]uint, error) {
	var some [256]C.ck_ulong
	var all []uint
	for len(all) < maxObjects {
		r := C.msl_find(l.list, C.ck_ulong(session), &some[0], C.ck_ulong(len(some)))
		if err := written("C_FindObjects", r.value, l.count(r, C.FN_FindObjects)); err != nil {
			return nil, err
		}
		if r.value > C.ck_ulong(len(some)) {
			return nil, errGarbage("C_FindObjects", uint(r.value))
		}
		if r.value == 0 {
			return all, nil
		}
		if slices.Contains(all, uint(some[0])) {
			return nil, &Error{Function: "C_FindObjects", garbage: "an object that it had found before"}
		}
		for _, o := range some[:r.value] {
			all = append(all, uint(o))
		}
	}
	return nil, errGarbage("C_FindObjects", maxObjects)
}

// piece is how many bytes of an attribute are read at first: the modulus of RSA-4096.
const piece = 512

// attributes reads attributes of an object in one call. An attribute that the module does
// not know or report is missing in the answer; any other failure fails the whole call.
func (l objectCalls) attributes(session, object uint, types ...uint) (map[uint][]byte, error) {
	names, lengths := make([]C.ck_ulong, len(types)), make([]C.ck_ulong, len(types))
	for i, t := range types {
		names[i] = C.ck_ulong(t)
	}
	values := make([]byte, piece*len(types))
	p, _ := mem(values)
	r := C.msl_attributes(l.list, C.ck_ulong(session), C.ck_ulong(object), &names[0], &lengths[0], C.ck_ulong(len(types)), p, piece)
	err := written("C_GetAttributeValue", r.value, l.count(r, C.FN_GetAttributeValue))
	switch {
	case len(types) == 1 && err != nil:
		return l.single(session, object, types, err)
	case err != nil && !untold(err):
		return nil, err
	}
	all := map[uint][]byte{}
	for i, t := range types {
		n := uint(lengths[i])
		switch {
		case err != nil && askAlone(t, n):
			one, err := l.attributes(session, object, t)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, one)
		case n == ^uint(0):
		case n > piece:
			return nil, errGarbage("C_GetAttributeValue", n)
		default:
			all[t] = values[i*piece : i*piece+int(n)]
			l.seen.note(all[t])
		}
	}
	return all, nil
}

// askAlone reports whether an attribute has to be read on its own, after the module
// refused one of several: where it did not come to it, where it may be too long,
// and what every object has.
func askAlone(attribute, n uint) bool {
	switch attribute {
	case pkcs11.CKA_CLASS, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_PRIVATE, pkcs11.CKA_KEY_TYPE:
		return n == ^uint(0) || n == piece
	}
	return n == piece
}

// untold reports whether a module does not know or report an attribute, or its value is
// longer than expected: the others can still be read.
func untold(err error) bool { return quirkUntold.is(err) }

// single judges the refusal of an attribute that was read on its own.
func (l objectCalls) single(session, object uint, types []uint, err error) (map[uint][]byte, error) {
	var e *Error
	switch errors.As(err, &e); {
	case !untold(err):
		return nil, err
	case e.Code == pkcs11.CKR_BUFFER_TOO_SMALL:
		return l.long(session, object, types[0])
	}
	return map[uint][]byte{}, nil
}

// long reads an attribute of any length.
func (l objectCalls) long(session, object, attribute uint) (map[uint][]byte, error) {
	name, length, value := C.ck_ulong(attribute), C.ck_ulong(0), make([]byte, maxValue)
	p, n := mem(value)
	r := C.msl_attributes(l.list, C.ck_ulong(session), C.ck_ulong(object), &name, &length, 1, p, n)
	if err := written("C_GetAttributeValue", r.value, l.count(r, C.FN_GetAttributeValue)); err != nil {
		return nil, err
	}
	if length > n {
		return nil, errGarbage("C_GetAttributeValue", uint(length))
	}
	return map[uint][]byte{attribute: value[:length]}, nil
}

// attribute reads one attribute of an object: nil if the module does not know or report it.
func (l objectCalls) attribute(session, object, attribute uint) ([]byte, error) {
	all, err := l.attributes(session, object, attribute)
	return all[attribute], err
}
