package hsm

// #cgo noescape msl_sign_parts
// #cgo nocallback msl_sign_parts
// #include "operation.h"
import "C"

import (
	"crypto/aes"

	"github.com/miekg/pkcs11"
)

// Some modules take no more than so many bytes in a call. The limit is met once, by data
// that is longer, and kept for the store.

// tooLong reports whether a module may have refused data for its length. Every module takes
// the smallest part.
func tooLong(err error, size int) bool { return size > leastPart && quirkLongData.is(err) }

const (
	firstPart = 8 << 10
	leastPart = 1 << 10
)

// part is how much of so many bytes the module is known to take.
func (e *entry) part(size int) int {
	if most := int(e.most.Load()); most > 0 {
		return min(size, most)
	}
	return size
}

// learn returns the error of an operation in such parts. Where the module refused one for its
// length, the next try on another session has smaller ones: an operation may be left active in
// this one. A lack of memory is a limit only if it occurs again before as much was accepted; the
// smallest parts are next then, because the operation has one more try.
func (e *entry) learn(part int, err error) error {
	short := int(e.short.Load())
	switch {
	case err == nil && short > 0 && part >= short:
		e.short.Store(0)
	case err == nil || !tooLong(err, part):
	case quirkMemory.is(err) && (short == 0 || part < short):
		e.short.Store(int64(part))
	case part > firstPart && !quirkMemory.is(err):
		e.most.Store(firstPart)
	default:
		e.most.Store(leastPart)
	}
	return err
}

func (l keyCalls) encrypt(session, key, mechanism uint, iv, in, out []byte) (int, error) {
	part := l.part(len(in))
	n, err := l.chain(C.FN_EncryptInit, session, key, mechanism, iv, in, out, part)
	return n, l.learn(part, err)
}

func (l keyCalls) decrypt(session, key, mechanism uint, iv, in, out []byte) (int, error) {
	if mechanism != pkcs11.CKM_AES_CBC {
		return l.crypt(C.FN_DecryptInit, session, key, mechanism, iv, in, out)
	}
	part := l.part(len(in))
	n, err := l.chain(C.FN_DecryptInit, session, key, mechanism, iv, in, out, part)
	return n, l.learn(part, err)
}

// chain runs AES-CBC in calls of so many bytes, whole blocks: each goes on with the last
// block of ciphertext of the one before as its initialization vector (NIST SP 800-38A
// section 6.2).
func (l keyCalls) chain(init C.int, session, key, mechanism uint, iv, in, out []byte, part int) (all int, err error) {
	if part >= len(in) { // as nearly always
		return l.crypt(init, session, key, mechanism, iv, in, out[:min(len(in), len(out))])
	}
	for len(in) > 0 {
		part = min(part, len(in))
		var next [aes.BlockSize]byte
		if init == C.FN_DecryptInit && part >= aes.BlockSize {
			copy(next[:], in[part-aes.BlockSize:part])
		}
		n, err := l.crypt(init, session, key, mechanism, iv, in[:part], out[:min(part, len(out))])
		if err != nil || n != part {
			return all + n, err
		}
		if init == C.FN_EncryptInit && part >= aes.BlockSize {
			copy(next[:], out[part-aes.BlockSize:part])
		}
		all, in, out, iv = all+n, in[part:], out[part:], next[:]
	}
	return all, nil
}

// signWith is sign with mechanism parameters that contain only numbers.
func (l keyCalls) signWith(session, key, mechanism uint, params, in, out []byte) (int, error) {
	return l.crypt(C.FN_SignInit, session, key, mechanism, params, in, out)
}

func (l keyCalls) sign(session, key, mechanism uint, in, out []byte) (int, error) {
	part := l.part(len(in))
	if part == len(in) { // as nearly always
		n, err := l.crypt(C.FN_SignInit, session, key, mechanism, nil, in, out)
		return n, l.learn(part, err)
	}
	n, err := l.signParts(session, key, mechanism, in, out, part)
	return n, l.learn(part, err)
}

func (l keyCalls) signParts(session, key, mechanism uint, in, out []byte, part int) (int, error) {
	l.seen.note(in)
	i, n := mem(in)
	o, m := mem(out)
	r := C.msl_sign_parts(l.list, C.ck_ulong(session), C.ck_ulong(key), C.ck_ulong(mechanism), i, n, C.ck_ulong(part), o, m)
	l.seen.note(out)
	return int(r.value), l.count(r, C.FN_SignInit, C.FN_SignUpdate, C.FN_SignFinal)
}
