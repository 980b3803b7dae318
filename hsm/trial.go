package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An outcome is the result of trying something that must fail.
type outcome int

const (
	refused outcome = iota // proven
	opened                 // refuted
	unclear                // unknown
)

// mustFail tries what must fail. A failure counts as a refusal if its code is one of
// refusals, or if try fails again after like, a similar call that is allowed, has
// worked: otherwise the device may just be failing. like may be nil.
func mustFail(try, like func() error, refusals quirk) (outcome, error) {
	err := try()
	if err == nil {
		return opened, nil
	}
	var e *Error
	switch {
	case !errors.As(err, &e):
		return unclear, err
	case refusals.is(e):
		return refused, nil
	case e.class() == classStale, e.class() == classSession, e.class() == classDevice, e.class() == classObject:
		return unclear, err
	case like == nil:
		return unclear, nil
	}
	if err := like(); err != nil {
		return unclear, err
	}
	if try() == nil {
		return opened, nil
	}
	return refused, nil
}

// provesTemplate tells whether keys unwrapped by the key are closed: by reading its
// UNWRAP_TEMPLATE, and by trying to unwrap keys that are not. If the module is known to
// enforce every attribute of a template that it reports, only the worst one is tried.
func (i *inspector) provesTemplate(session uint, e *evidence, k kind, declared map[uint]uint) (outcome, error) {
	if k.unwrapped == nil {
		return opened, nil
	}
	for _, f := range k.unwrapped {
		value, present := declared[f.attribute]
		if len(declared) > 0 && (!present || (value != 0) != f.value) {
			return opened, nil
		}
	}
	t, err := i.trial(session, *e)
	if err != nil {
		return unclear, err
	}
	e.witness = t.wrapped
	tried, all := k.unwrapped, true
	if len(declared) > 0 && i.keepsTemplates.Load() {
		tried, all = tried[:1], false
	}
	worst, err := t.tryAll(i, session, tried, all)
	if err == nil && worst == unclear && len(declared) > 0 {
		worst = refused // as it says
	}
	return worst, err
}

// tryAll tries to unwrap without each of the protections: turned round and, with
// omit, left out too.
func (t *trial) tryAll(i *inspector, session uint, protections []flagValue, omit bool) (outcome, error) {
	worst := refused
	for _, f := range protections {
		for _, left := range []bool{false, true} {
			if left && !omit {
				continue
			}
			outcome, err := t.opens(i, session, f, left)
			if err != nil || outcome == opened {
				return outcome, err
			}
			worst = max(worst, outcome)
		}
	}
	return worst, nil
}

// A trial is a wrapped key to unwrap in ways that must fail.
type trial struct {
	kek     uint
	form    form
	target  kind
	bound   []flagValue // that what the key unwraps has besides
	wrapped []byte
	noise   bool // wrapped is nothing that unwraps
}

// trial wraps a throwaway key under e. Under a key that only unwraps nothing
// known can be made: then it takes noise, and many modules still tell whether
// it was the template that they refuse.
func (i *inspector) trial(session uint, e evidence) (t *trial, err error) {
	t = &trial{kek: e.handle, wrapped: make([]byte, 24)}
	t.form, _ = i.keyWrap() // without it the key is of no use, and opens nothing
	t.target, _ = kindOf(sealable(e.Algorithm))
	t.bound = bindingOf(e.Reseals)
	rand.Read(t.wrapped)
	switch {
	case e.Algorithm.Sealing():
		if t.form, err = i.formOf(e.told[ckaAllowed]); err != nil {
			return nil, err
		}
		return t, t.wrapThrowaway(i, session, sealable(e.Algorithm))
	case e.keyType == pkcs11.CKK_RSA:
		half, err := i.publicHalf(session, e)
		if err != nil {
			return nil, err
		}
		t.form = form{mechanism: pkcs11.CKM_RSA_PKCS_OAEP}
		t.wrapped, err = oaeptrial.Encrypt(half.(*rsa.PublicKey), t.wrapped[:16])
		return t, err
	}
	t.noise = true
	return t, nil
}

func (t *trial) wrapThrowaway(i *inspector, session uint, a keystore.Algorithm) error {
	k, err := i.throwaway(session, a)
	if err != nil {
		return err
	}
	if t.wrapped, err = t.form.wrap(i.library, session, t.kek, k, a.Size()); err == nil && t.form.iv == 0 {
		err = t.wrapsAlike(i, session, k, a.Size())
	}
	return errors.Join(err, i.destroy(session, k))
}

// wrapsAlike wraps once more: what is remembered of a sealing key must not be a wrong answer.
func (t *trial) wrapsAlike(i *inspector, session, key uint, size int) error {
	again, err := t.form.wrap(i.library, session, t.kek, key, size)
	if err == nil && !bytes.Equal(again, t.wrapped) {
		err = &Error{Function: "C_WrapKey", garbage: "two different wrapped forms of the same key"}
	}
	return err
}

// template returns a valid template with attribute f inverted or left out.
func (t *trial) template(f flagValue, omit bool) template {
	out := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY).number(pkcs11.CKA_KEY_TYPE, t.target.keyType)
	values := []flagValue{
		{pkcs11.CKA_TOKEN, false}, {pkcs11.CKA_PRIVATE, true}, {pkcs11.CKA_SENSITIVE, true}, {pkcs11.CKA_EXTRACTABLE, false},
	}
	for _, u := range secretUsages {
		values = append(values, flagValue{u.attribute, slices.Contains(t.target.usages, u.attribute)})
	}
	values = append(append(values, t.bound...), flagValue{ckaCopyable, false}, flagValue{pkcs11.CKA_MODIFIABLE, false})
	for _, v := range values {
		switch {
		case v.attribute != f.attribute:
			out = out.flag(v.attribute, v.value)
		case !omit:
			out = out.flag(v.attribute, !f.value)
		}
	}
	return out
}

// sound unwraps as it should be.
func (t *trial) sound(i *inspector, session uint) error {
	m, err := t.form.unwrap(i.library, session, t.kek, t.wrapped, i.taken(t.template(flagValue{attribute: ^uint(0)}, false)))
	if err != nil {
		return err
	}
	return i.destroy(session, m.handle)
}

// errStillClosed is an unwrapped key that has the protection nevertheless.
var errStillClosed = &Error{Function: "C_UnwrapKey", Code: pkcs11.CKR_TEMPLATE_INCONSISTENT}

// opens tries to unwrap a key without the protection f.
func (t *trial) opens(i *inspector, session uint, f flagValue, omit bool) (outcome, error) {
	like := func() error { return t.sound(i, session) }
	if t.noise {
		like = nil
	}
	var failed error // of what is not the thing that must fail
	outcome, err := mustFail(func() error {
		m, err := t.form.unwrap(i.library, session, t.kek, t.wrapped, i.taken(t.template(f, omit)))
		if err != nil && m.handle == 0 {
			return err
		}
		failed = errors.Join(failed, err)
		b, err := i.attribute(session, m.handle, f.attribute)
		if failed = errors.Join(failed, err, i.destroy(session, m.handle)); failed == nil && len(b) == 1 && (b[0] == 1) == f.value {
			return errStillClosed
		}
		return nil
	}, like, quirkTemplate)
	if failed != nil {
		return unclear, failed
	}
	return outcome, err
}
