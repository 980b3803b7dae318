package hsm

// #cgo LDFLAGS: -ldl
// #cgo noescape msl_login
// #cgo nocallback msl_login
// #cgo noescape msl_crypt
// #cgo nocallback msl_crypt
// #cgo noescape msl_wrap
// #cgo nocallback msl_wrap
// #cgo noescape msl_wrap_for
// #cgo nocallback msl_wrap_for
// #cgo noescape msl_unwrap
// #cgo nocallback msl_unwrap
// #cgo noescape msl_reveal
// #cgo nocallback msl_reveal
// #cgo noescape msl_generate
// #cgo nocallback msl_generate
// #cgo noescape msl_create
// #cgo nocallback msl_create
// #cgo noescape msl_copy
// #cgo nocallback msl_copy
// #cgo noescape msl_set
// #cgo nocallback msl_set
// #cgo nocallback msl_destroy
// #cgo noescape msl_random
// #cgo nocallback msl_random
// #include <stdlib.h>
// #include "operation.h"
import "C"

import (
	"bytes"
	"crypto/aes"
	"errors"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
)

// A functions is the table of functions of a module, which stays loaded.
type functions struct{ list *C.ck_functions }

// A calls counts the calls of C_ functions by their place in the table.
type calls [C.FN_count]atomic.Uint64

// An entry is the way into a module. It counts the calls for one store.
type entry struct {
	functions
	calls *calls
	pace  pace.Pace
	seals atomic.Pointer[form]   // how keys are sealed in the module, once that is known
	loose atomic.Pointer[[]uint] // attributes that it does not take of unsealed keys
	most  atomic.Int64           // bytes of data that a call takes; 0 while no limit was met
	short atomic.Int64           // bytes of a long call that lacked memory; 0 if as long a one did not since
	pads  atomic.Bool            // it says that it wraps with CKM_AES_CBC_PAD
	binds atomic.Bool            // it keeps keys to their CKA_ALLOWED_MECHANISMS
	bare  atomic.Bool            // it was seen to make no objects of the session
	takes atomic.Bool            // it was seen to make keys of bytes, as they are
	trust bool                   // sealing keys are for trusted wrapping
	seen  *tap                   // by a test, or nil
}

// A library calls a module. Its methods do no more than one thing in the token. The
// caller has entered the module's gate and has the session for itself.
type library struct {
	*entry
	tokenCalls
	objectCalls
	keyCalls
}

// tokenCalls are about slots, tokens, sessions and the login.
type tokenCalls struct{ *entry }

// objectCalls find objects, make them of a template, and read and change attributes.
type objectCalls struct{ *entry }

// keyCalls use keys, and make new ones.
type keyCalls struct{ *entry }

func newLibrary(f functions) library {
	e := &entry{functions: f, calls: new(calls)}
	return library{e, tokenCalls{e}, objectCalls{e}, keyCalls{e}}
}

// lastCall returns the function that a session was last at, and a number that changes with each
// call. Of a session in whose place another one was later nothing is known.
func (f functions) lastCall(session uint) (function string, number uint64, known bool) {
	at := f.place(session)
	return functionNames[int(at.doing)], uint64(at.calls), at.module == f.list && uint(at.session) == session
}

// A made is a new object, with the attributes read back that decide its safety:
// -1 where the module does not tell.
type made struct {
	ref
	sensitive, extractable int
	size                   int
}

var functionNames = map[int]string{
	C.FN_Initialize: "C_Initialize", C.FN_Finalize: "C_Finalize",
	C.FN_GetSlotList: "C_GetSlotList", C.FN_GetSlotInfo: "C_GetSlotInfo", C.FN_GetTokenInfo: "C_GetTokenInfo",
	C.FN_GetMechanismInfo: "C_GetMechanismInfo",
	C.FN_InitToken:        "C_InitToken", C.FN_InitPIN: "C_InitPIN", C.FN_SetPIN: "C_SetPIN",
	C.FN_OpenSession: "C_OpenSession", C.FN_CloseSession: "C_CloseSession",
	C.FN_GetSessionInfo: "C_GetSessionInfo", C.FN_Login: "C_Login", C.FN_Logout: "C_Logout",
	C.FN_CreateObject: "C_CreateObject", C.FN_CopyObject: "C_CopyObject", C.FN_DestroyObject: "C_DestroyObject",
	C.FN_GetAttributeValue: "C_GetAttributeValue", C.FN_SetAttributeValue: "C_SetAttributeValue",
	C.FN_FindObjectsInit: "C_FindObjectsInit", C.FN_FindObjects: "C_FindObjects",
	C.FN_FindObjectsFinal: "C_FindObjectsFinal",
	C.FN_EncryptInit:      "C_EncryptInit", C.FN_Encrypt: "C_Encrypt",
	C.FN_DecryptInit: "C_DecryptInit", C.FN_Decrypt: "C_Decrypt",
	C.FN_DigestInit: "C_DigestInit", C.FN_DigestKey: "C_DigestKey", C.FN_DigestFinal: "C_DigestFinal",
	C.FN_SignInit: "C_SignInit", C.FN_Sign: "C_Sign",
	C.FN_SignUpdate: "C_SignUpdate", C.FN_SignFinal: "C_SignFinal",
	C.FN_GenerateKey: "C_GenerateKey", C.FN_GenerateKeyPair: "C_GenerateKeyPair",
	C.FN_WrapKey: "C_WrapKey", C.FN_UnwrapKey: "C_UnwrapKey",
	C.FN_GenerateRandom: "C_GenerateRandom",
}

// load loads a module and says why it cannot. Its table of functions is asked for
// once: some modules answer another one, with a state of its own, each time.
func load(path string) (functions, error) {
	var reason [512]C.char
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var rv C.ck_rv
	defer keepOwn()()
	list := C.msl_load(name, &rv, &reason[0], C.ck_ulong(len(reason)))
	switch {
	case rv != 0:
		return functions{}, &Error{Function: "C_GetFunctionList", Code: uint(rv)}
	case list == nil:
		return functions{}, errors.New(strings.TrimPrefix(C.GoString(&reason[0]), path+": "))
	}
	return functions{list}, nil
}

// mem passes the memory of b, which holds no pointers, into C.
func mem(b []byte) (*C.ck_byte, C.ck_ulong) {
	return (*C.ck_byte)(unsafe.SliceData(b)), C.ck_ulong(len(b))
}

// count notes calls of the functions, up to the one that failed, and makes its
// answer an error.
func (e *entry) count(r C.msl_result, functions ...int) error {
	for _, fn := range functions {
		e.calls[fn].Add(1)
		if r.rv != 0 && fn == int(r.fn) {
			break
		}
	}
	if r.rv == 0 {
		return nil
	}
	return &Error{Function: functionNames[int(r.fn)], Code: uint(r.rv)}
}

// born is count of functions that make an object, or change one, and returns it, as far as
// there is one even with an error.
func (e *entry) born(r C.msl_result, functions ...int) (made, error) {
	m := made{ref{handle: uint(r.value)}, int(r.sensitive), int(r.extractable), int(r.size)}
	err := e.count(r, functions...)
	switch {
	case err == nil && m.handle == 0:
		err = unwritten(functionNames[functions[0]])
	case err == nil && (r.sensitive == C.MSL_UNWRITTEN || r.extractable == C.MSL_UNWRITTEN):
		err = unwritten("C_GetAttributeValue")
	}
	return m, err
}

// The token's flags may say more than a refusal, if they differ from what it reported before:
// some modules answer anything to a wrong PIN, which must not be given again.
func (l tokenCalls) login(session uint, token tokenInfo, r Role, pin []byte) error {
	defer uncut.Begin()()
	p, n := mem(pin)
	err := l.count(C.msl_login(l.list, C.ck_ulong(session), C.ck_ulong(r), p, n), C.FN_Login)
	var e *Error
	if !errors.As(err, &e) || e.class() == classPIN || e.Code == pkcs11.CKR_USER_ALREADY_LOGGED_IN {
		return err
	}
	now, untold := l.tokenInfo(token.slot)
	e.counted = untold == nil && (PINs{flags: now.Flags &^ token.Flags}).State(r) >= PINCountLow
	return err
}

// logout ends the login of all sessions of this process with the token.
func (l tokenCalls) logout(session uint) error {
	return l.count(C.msl_logout(l.list, C.ck_ulong(session)), C.FN_Logout)
}

// random fills out. Bytes that a module leaves unchanged cannot be told from random ones.
func (l tokenCalls) random(session uint, out []byte) error {
	p, n := mem(out)
	return l.count(C.msl_random(l.list, C.ck_ulong(session), p, n), C.FN_GenerateRandom)
}

func (l tokenCalls) initToken(slot uint, pin []byte, label [32]byte) error {
	defer uncut.Begin()()
	p, n := mem(pin)
	b, _ := mem(label[:])
	return l.count(C.msl_init_token(l.list, C.ck_ulong(slot), p, n, b), C.FN_InitToken)
}

func (l tokenCalls) initPIN(session uint, pin []byte) error {
	defer uncut.Begin()()
	p, n := mem(pin)
	return l.count(C.msl_init_pin(l.list, C.ck_ulong(session), p, n), C.FN_InitPIN)
}

func (l tokenCalls) changePIN(session uint, old, pin []byte) error {
	defer uncut.Begin()()
	o, m := mem(old)
	p, n := mem(pin)
	return l.count(C.msl_set_pin(l.list, C.ck_ulong(session), o, m, p, n), C.FN_SetPIN)
}

// begin returns when an operation with a session key begins, if it is to be timed.
func (e *entry) begin(mechanism uint, size int) time.Time {
	switch mechanism {
	case pkcs11.CKM_AES_CBC, pkcs11.CKM_SHA256_HMAC, pkcs11.CKM_AES_CMAC:
		return e.pace.Begin(size)
	}
	return time.Time{}
}

// crypt runs a single-part operation and returns the length of what it wrote
// into out. It may write over in.
func (l keyCalls) crypt(init C.int, session, key, mechanism uint, iv, in, out []byte) (int, error) {
	l.seen.note(iv, in)
	v, vn := mem(iv)
	i, in1 := mem(in)
	o, on := mem(out)
	var first [aes.BlockSize]byte
	whole := copy(first[:], in) == len(first) // in may be the same memory
	start := l.begin(mechanism, len(in))
	r := C.msl_crypt(l.list, init, C.ck_ulong(session), C.ck_ulong(key), C.ck_ulong(mechanism), v, vn, i, in1, o, on)
	l.seen.note(out)
	err := l.count(r, int(init), int(init)+1)
	switch {
	case err == nil && init == C.FN_EncryptInit && whole && bytes.HasPrefix(out, first[:]):
		err = unwritten("C_Encrypt") // no plaintext is given out for its ciphertext
	case err == nil:
		l.pace.End(start)
	}
	return int(r.value), err
}

// wrap wraps a key. A module that draws the initialization vector itself writes it to iv.
func (l keyCalls) wrap(session, mechanism, kek, key uint, iv, out []byte) (int, error) {
	v, vn := mem(iv)
	o, on := mem(out)
	r := C.msl_wrap(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), C.ck_ulong(kek), C.ck_ulong(key), v, vn, o, on)
	l.seen.note(out)
	return int(r.value), l.count(r, C.FN_WrapKey)
}

// wrapFor makes a session object of the peer's public key, wraps under it and
// destroys it.
func (l keyCalls) wrapFor(session uint, peer []byte, key uint, out []byte) (int, error) {
	p, pn := mem(peer)
	o, on := mem(out)
	r := C.msl_wrap_for(l.list, C.ck_ulong(session), p, pn, C.ck_ulong(key), o, on)
	l.seen.note(peer, out)
	return int(r.value), l.count(r, C.FN_CreateObject, C.FN_WrapKey, C.FN_DestroyObject)
}

func (l keyCalls) unwrap(session, mechanism, kek uint, iv, in, template []byte) (made, error) {
	v, vn := mem(iv)
	i, in1 := mem(in)
	t, tn := mem(template)
	l.seen.note(in, template)
	r := C.msl_unwrap(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), C.ck_ulong(kek), v, vn, i, in1, t, tn)
	return l.born(r, C.FN_UnwrapKey, C.FN_GetAttributeValue)
}

// reveal unwraps an object, reads its value into out and destroys it.
func (l keyCalls) reveal(session, kek uint, in, template, out []byte) (int, error) {
	f, err := l.keyWrap()
	if err != nil {
		return 0, err
	}
	i, in1 := mem(in)
	t, tn := mem(template)
	o, on := mem(out)
	r := C.msl_reveal(l.list, C.ck_ulong(session), C.ck_ulong(f.mechanism), C.ck_ulong(kek), i, in1, t, tn, o, on)
	l.seen.note(in, template, out)
	return int(r.value), l.count(r, C.FN_UnwrapKey, C.FN_GetAttributeValue, C.FN_DestroyObject)
}

// wrapData makes an object, wraps it and destroys it.
func (l library) wrapData(session uint, template []byte, kek uint, out []byte) (int, error) {
	f, err := l.keyWrap()
	if err != nil {
		return 0, err
	}
	m, err := l.create(session, template)
	if err != nil {
		return 0, err
	}
	n, err := l.wrap(session, f.mechanism, kek, m.handle, nil, out)
	return n, errors.Join(err, l.destroy(session, m.handle))
}

// generate makes a key and reads its attributes back.
func (l keyCalls) generate(session, mechanism uint, template []byte) (made, error) {
	t, tn := mem(template)
	l.seen.note(template)
	r := C.msl_generate(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), t, tn, 1)
	return l.born(r, C.FN_GenerateKey, C.FN_GetAttributeValue)
}

// forTrial makes a key to try something with, which protects nothing and is destroyed soon.
func forTrial(l keyCalls, session, mechanism uint, template []byte) (made, error) {
	t, tn := mem(template)
	l.seen.note(template)
	return l.born(C.msl_generate(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), t, tn, 0), C.FN_GenerateKey)
}

// generatePair returns the private key, and the handle of the public one.
func (l keyCalls) generatePair(session, mechanism uint, public, private []byte) (made, uint, error) {
	var handle C.ck_ulong
	p, pn := mem(public)
	q, qn := mem(private)
	l.seen.note(public, private)
	r := C.msl_generate_pair(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), p, pn, q, qn, &handle)
	m, err := l.born(r, C.FN_GenerateKeyPair, C.FN_GetAttributeValue)
	if err == nil && handle == 0 {
		err = unwritten("C_GenerateKeyPair")
	}
	return m, uint(handle), err
}

// create makes an object and reads its attributes back.
func (l objectCalls) create(session uint, template []byte) (made, error) {
	t, tn := mem(template)
	l.seen.note(template)
	r := C.msl_create(l.list, C.ck_ulong(session), t, tn)
	if m, err := l.born(r, C.FN_CreateObject); err != nil {
		return m, err
	}
	return l.set(session, uint(r.value), nil)
}

// set changes attributes, if the template has any, and reads back.
func (l objectCalls) set(session, object uint, template []byte) (made, error) {
	t, tn := mem(template)
	l.seen.note(template)
	r := C.msl_set(l.list, C.ck_ulong(session), C.ck_ulong(object), t, tn)
	if len(template) == 0 {
		return l.born(r, C.FN_GetAttributeValue)
	}
	return l.born(r, C.FN_SetAttributeValue, C.FN_GetAttributeValue)
}

// copy makes another object of one, with changes, and returns its handle.
func (l objectCalls) copy(session, object uint, changes []byte) (uint, error) {
	t, tn := mem(changes)
	r := C.msl_copy(l.list, C.ck_ulong(session), C.ck_ulong(object), t, tn)
	m, err := l.born(r, C.FN_CopyObject)
	return m.handle, err
}

func (l objectCalls) destroy(session, object uint) error {
	return l.count(C.msl_destroy(l.list, C.ck_ulong(session), C.ck_ulong(object)), C.FN_DestroyObject)
}

// digestKey hashes the value of a key.
func (l keyCalls) digestKey(session, mechanism, key uint, out []byte) (int, error) {
	o, on := mem(out)
	r := C.msl_digest_key(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), C.ck_ulong(key), o, on)
	return int(r.value), l.count(r, C.FN_DigestInit, C.FN_DigestKey, C.FN_DigestFinal)
}

// nested reads an attribute that is a template of numbers and truth values.
func (l objectCalls) nested(session, object, attribute uint) (map[uint]uint, error) {
	var types, values [24]C.ck_ulong
	r := C.msl_nested(l.list, C.ck_ulong(session), C.ck_ulong(object), C.ck_ulong(attribute), &types[0], &values[0], C.ck_ulong(len(types)))
	if err := l.count(r, C.FN_GetAttributeValue); err != nil {
		return nil, err
	}
	template := map[uint]uint{}
	if int(r.value) == len(types) && types == [len(types)]C.ck_ulong{} {
		return nil, unwritten("C_GetAttributeValue")
	}
	for i := range types[:r.value] {
		template[uint(types[i])] = uint(values[i])
	}
	return template, nil
}
