package hsm

import (
	"bytes"
	"crypto"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A mark is how a key is known again after the token was opened anew: there may
// be another token of the same name by then, or another key under the same label.
type mark struct {
	value     []byte // what the key makes of a constant, or its check value
	confirmed bool   // a second value was the same
	witness   []byte // of a sealing key: a random key that it wrapped, in the form
	form      form
	reseals   bool // what a sealing key sealed can be sealed again by a trusted one
	trusted   bool // it is such a one
}

var constant = []byte("msl-hsm: is it you?\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // two blocks of AES

// markOf makes the mark of a key. The mark of a key that only unwraps is its check value, if
// the module reports one (PKCS #11 v2.40 section 4.10.2); a pair has its public
// half, which is remembered besides.
func (i *inspector) markOf(session uint, e evidence) (m mark, err error) {
	switch a := e.Algorithm; a {
	case keystore.SealSession256, keystore.SealWrapping256:
		if m.form, err = i.formOf(e.told[ckaAllowed]); err != nil {
			return m, err
		}
		m.reseals, m.trusted = e.Reseals, e.Trusted
		if m.witness = e.witness; m.witness == nil {
			t := &trial{kek: e.handle, form: m.form}
			err = t.wrapThrowaway(i, session, sealable(a))
			m.witness = t.wrapped
		}
		return m, err
	case keystore.AESWrap128, keystore.AESUnwrap128, keystore.AESReveal128:
		if e.revealsBlocks() {
			m.form, m.value = form{mechanism: pkcs11.CKM_AES_CBC}, make([]byte, len(constant))
			n, err := i.decrypt(session, e.handle, pkcs11.CKM_AES_CBC, make([]byte, 16), constant, m.value)
			return m, wrote("C_Decrypt", m.value, n, err)
		}
		m.value, err = i.attribute(session, e.handle, pkcs11.CKA_CHECK_VALUE)
		return m, err
	}
	m.value, err = i.markValue(session, e)
	return m, err
}

// markValue is what a key makes of a constant.
func (i *inspector) markValue(session uint, e evidence) ([]byte, error) {
	k, err := kindOf(e.Algorithm)
	if err != nil || !e.Algorithm.Secret() {
		return nil, nil
	}
	out := make([]byte, len(constant))
	n, function := 0, "C_Sign"
	switch k.mechanisms[0] {
	case pkcs11.CKM_AES_CBC:
		function = "C_Encrypt"
		n, err = i.encrypt(session, e.handle, pkcs11.CKM_AES_CBC, make([]byte, 16), constant, out)
	case pkcs11.CKM_AES_CMAC:
		out = out[:16]
		n, err = i.sign(session, e.handle, pkcs11.CKM_AES_CMAC, constant, out)
	default:
		n, err = i.sign(session, e.handle, pkcs11.CKM_SHA256_HMAC, constant, out)
	}
	return out, wrote(function, out, n, err)
}

// sameAs returns an error unless the key is the one it was. The device is at fault
// then.
func (i *inspector) sameAs(session uint, e evidence, old version) error {
	same, err := sameKey(i, session, e, old)
	if err == nil && !same {
		err = notTheSame(e.Label, e.Version)
	}
	return err
}

// sameKey reports whether an object is the key of a version.
func sameKey(i *inspector, session uint, e evidence, v version) (bool, error) {
	e.Algorithm = v.algorithm
	switch public := v.public.(type) {
	case interface{ Equal(crypto.PublicKey) bool }: // of RSA and ECDSA
		now, err := i.publicHalf(session, e)
		return err == nil && public.Equal(now), err
	}
	return i.marked(session, e, v.mark)
}

func notTheSame(label string, version uint32) error {
	return fmt.Errorf("hsm: key %q version %d is not the same key as before, as if its token had been replaced: %w", label, version, keystore.ErrUnavailable)
}

// proveOne asks a secret key that is known for what it made of the constant when it was
// found, or without one the random number generator for a number.
func (r *rings) proveOne(session uint) error {
	v, ok := r.withMark()
	if !ok {
		return r.random(session, make([]byte, len(constant)))
	}
	return r.makesMark(session, v)
}

// prove asks a version of a key for what it made of the constant when it was found.
func (r *rings) prove(label string, number uint32) error {
	v, err := r.findVersion(label, number)
	if err != nil {
		return err
	}
	return r.on(r.sessions, v.epoch(), func(session uint, _ uint64) error { return r.makesMark(session, v) })
}

func (r *rings) makesMark(session uint, v version) error {
	now, err := r.inspector.markValue(session, evidence{Info: keystore.Info{Algorithm: v.algorithm}, handle: v.handle})
	if err == nil && !bytes.Equal(now, v.mark.value) {
		err = errMismatch
	}
	return err
}

// withMark returns a secret key whose handle is current, and which encrypts or signs.
func (r *rings) withMark() (version, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, ring := range r.labels {
		if !r.current(ring) {
			continue
		}
		if computes(ring[0].algorithm) {
			return ring[0], true
		}
	}
	return version{}, false
}

// computes reports whether keys of an algorithm encrypt or sign, so that markValue can ask them.
func computes(a keystore.Algorithm) bool {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128, keystore.SealMAC256:
		return true
	}
	return false
}

// marked reports whether a secret key makes the mark again.
func (i *inspector) marked(session uint, e evidence, old mark) (bool, error) {
	if old.witness == nil {
		now, err := i.markOf(session, e)
		return bytes.Equal(now.value, old.value), err
	}
	t := &trial{kek: e.handle, form: old.form, wrapped: old.witness, bound: bindingOf(old.reseals)}
	t.target, _ = kindOf(sealable(e.Algorithm))
	return true, t.sound(i, session) // what another key wrapped does not unwrap (RFC 3394 section 2.2.3)
}
