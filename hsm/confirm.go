package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// confirm tries what is remembered of a key that was just found, and by which it is known again
// from then on. One wrong answer of the module would otherwise make it another key for as long
// as the store is open. Values that keys make of a constant are confirmed later, see
// [rings.confirmMarks].
func confirm(i *inspector, session uint, e evidence, v version) error {
	switch {
	case v.public != nil:
		return confirmPair(i, session, e, v.public)
	case v.mark.witness != nil && v.mark.form.iv > 0: // others were wrapped twice
		_, err := i.marked(session, e, v.mark)
		return err
	}
	return nil
}

// confirmMarks makes once more what keys made of the constant when they were found, but not at
// once, since that would take a start longer. Where two further values agree, the first one was
// wrong.
func (r *rings) confirmMarks() {
	for _, v := range r.unconfirmed() {
		value, err := r.markAgain(v)
		switch {
		case err == nil:
			r.confirmed(v, value)
		case errors.Is(err, errMismatch):
			r.log.Warn("a key computes different values from the same data", "label", v.label, "version", v.number)
		}
	}
}

// unconfirmed are the versions with a value that was made once.
func (r *rings) unconfirmed() (all []version) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, ring := range r.labels {
		for _, v := range ring {
			if r.current(ring) && computes(v.algorithm) && !v.mark.confirmed {
				all = append(all, v)
			}
		}
	}
	return all
}

// markAgain returns the value that a key makes, if it made it twice.
func (r *rings) markAgain(v version) (value []byte, err error) {
	e := evidence{Info: keystore.Info{Algorithm: v.algorithm}, handle: v.handle}
	err = r.on(r.sessions, v.epoch(), func(session uint, _ uint64) error {
		before := v.mark.value
		for range 2 {
			if value, err = r.inspector.markValue(session, e); err != nil || bytes.Equal(value, before) {
				return err
			}
			before = value
		}
		return errMismatch
	})
	return value, err
}

// confirmed notes the value of a version.
func (r *rings) confirmed(v version, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring := slices.Clone(r.labels[v.label])
	for i := range ring {
		if ring[i].handle == v.handle && ring[i].life == v.life {
			ring[i].mark.value, ring[i].mark.confirmed = value, true
		}
	}
	if ring != nil {
		r.labels[v.label] = ring
	}
}

// confirmPair uses both halves of a pair: the public one may have been misread, or be that of
// another pair with the same label. An operation that the module lacks cannot be tried.
func confirmPair(i *inspector, session uint, e evidence, public crypto.PublicKey) error {
	err := usePair(i, session, e, public)
	switch {
	case err == nil, classOf(err) == classUnsupported:
		return nil
	}
	return fmt.Errorf("hsm: key %q version %d and its public half do not work together: %w", e.Label, e.Version, err)
}

func usePair(i *inspector, session uint, e evidence, public crypto.PublicKey) error {
	rsaPublic, isRSA := public.(*rsa.PublicKey)
	if !isRSA {
		_, err := i.signECDSA(session, e.handle, public.(*ecdsa.PublicKey), constant)
		return err
	}
	k, err := kindOf(e.Algorithm)
	if err != nil {
		return err
	}
	out := make([]byte, rsaPublic.Size())
	switch {
	case k.mechanisms[0] == pkcs11.CKM_RSA_PKCS:
		return i.signRSA(session, e.handle, rsaPublic, constant, out)
	case k.mechanisms[0] == pkcs11.CKM_RSA_PKCS_PSS:
		return i.signPSS(session, e.handle, rsaPublic, crypto.SHA256, constant, out)
	case k.usages[0] == pkcs11.CKA_DECRYPT:
		return i.decryptsFor(session, e.handle, rsaPublic, out)
	case i.bare.Load():
		return nil // what it unwraps cannot be made
	}
	t, err := i.trial(session, e)
	if err != nil {
		return err
	}
	return t.sound(i, session)
}

func (l keyCalls) decryptsFor(session, handle uint, public *rsa.PublicKey, out []byte) error {
	ciphertext, err := oaepForTrial(public, constant)
	if err != nil {
		return err
	}
	n, err := l.decrypt(session, handle, pkcs11.CKM_RSA_PKCS_OAEP, nil, ciphertext, out)
	if err = exactly("C_Decrypt", n, len(constant), err); err == nil && !bytes.Equal(out[:n], constant) {
		err = &Error{Function: "C_Decrypt", garbage: "another plaintext"}
	}
	return err
}

// publicHalf reads the public key of a pair: of RSA from the private key, where that has it
// too, and otherwise from the object beside it.
func (i *inspector) publicHalf(session uint, e evidence) (crypto.PublicKey, error) {
	if e.keyType == pkcs11.CKK_RSA && len(e.told[pkcs11.CKA_PUBLIC_EXPONENT]) > 0 {
		return rsaPublic(e.told)
	}
	halves, err := i.publicObjects(session, e.Label, e.id)
	if err != nil {
		return nil, err
	}
	if len(halves) == 0 {
		return nil, fmt.Errorf("hsm: key %q version %d has no public half in the token: %w", e.Label, e.Version, keystore.ErrNotFound)
	}
	return publicKey(i.library, session, halves[0], e.keyType)
}

func (i *inspector) publicObjects(session uint, label string, id []byte) ([]uint, error) {
	return i.find(session, template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY).flag(pkcs11.CKA_TOKEN, true).
		add(pkcs11.CKA_LABEL, []byte(label)).add(pkcs11.CKA_ID, id))
}
