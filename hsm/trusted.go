package hsm

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// The names of what is wrong with trusted wrapping.
const (
	weakTrust      = "trusted-wrapping"
	weakMixed      = "wrap-template"
	checkTrusted   = "wrap-with-trusted"
	checkOfficer   = "trusted-by-officer"
	checkStrangers = "trusted-strangers"
)

// Trusted wrapping (PKCS #11 v2.40, section 4.10) lets a sealed key be sealed again though
// nobody can read it. A sealing key that is for it demands of what it unwraps
// CKA_WRAP_WITH_TRUSTED in place of CKA_EXTRACTABLE=false. So whoever has the PIN can wrap
// that again, but only under a key that the security officer marked with CKA_TRUSTED.
//
// Both kinds of sealing keys are trusted, and what one of them unwraps may do more than
// what the other does: a pre-shared wrapping key that came out of seal-session could
// decrypt recorded traffic. So what seal-wrapping unwraps must have CKA_WRAP, and
// seal-session wraps by its CKA_WRAP_TEMPLATE only what has it not; and the other way
// round.

// bound ends the template of an unsealed key that only trusted keys wrap.
func (t template) bound() template {
	return t.flag(pkcs11.CKA_WRAP_WITH_TRUSTED, true).flags(false, ckaCopyable, pkcs11.CKA_MODIFIABLE)
}

// trusting is the kind of a sealing key that is for trusted wrapping.
func (k kind) trusting() kind {
	values := []flagValue{{pkcs11.CKA_SENSITIVE, true}, {pkcs11.CKA_WRAP_WITH_TRUSTED, true}}
	if v := (flagValue{pkcs11.CKA_WRAP, false}); slices.Contains(k.unwrapped, v) {
		values = append(values, v)
	} else {
		values = append(values, flagValue{pkcs11.CKA_DECRYPT, false}, flagValue{pkcs11.CKA_WRAP, true})
	}
	k.unwrapped = append(values, flagValue{pkcs11.CKA_UNWRAP, false}, flagValue{ckaCopyable, false}, flagValue{pkcs11.CKA_MODIFIABLE, false})
	return k
}

// trusts reports whether a sealing key of the kind is for trusted wrapping.
func (k kind) trusts() bool {
	return slices.Contains(k.unwrapped, flagValue{pkcs11.CKA_WRAP_WITH_TRUSTED, true})
}

// sort is what keys must be that such a sealing key wraps, as those that it unwraps are.
func (k kind) sort() []flagValue {
	return slices.DeleteFunc(slices.Clone(k.unwrapped), func(v flagValue) bool { return v.attribute != pkcs11.CKA_WRAP })
}

// inverse are the opposites.
func inverse(all []flagValue) []flagValue {
	all = slices.Clone(all)
	for i := range all {
		all[i].value = !all[i].value
	}
	return all
}

// sealable is an algorithm of keys that a key with algorithm a wraps.
func sealable(a keystore.Algorithm) keystore.Algorithm {
	if a == keystore.SealWrapping256 {
		return keystore.AESWrap128
	}
	return keystore.AES128CBC
}

// bindingOf is what such a sealing key demands besides of what it unwraps.
func bindingOf(reseals bool) []flagValue {
	if reseals {
		return []flagValue{{pkcs11.CKA_WRAP_WITH_TRUSTED, true}}
	}
	return nil
}

// A trustTrial finds out about a key what trusted wrapping asks of it.
type trustTrial struct {
	*inspector
	session uint
	e       *evidence
}

// kindShown is the kind that a key shows to be of. Where the module does not tell the
// UNWRAP_TEMPLATE, a sealing key is for trusted wrapping if what it unwraps may leave,
// bound to trusted keys.
func (t trustTrial) kindShown(declared map[uint]uint) (kind, error) {
	k, err := kindOf(t.e.Algorithm)
	switch {
	case err != nil || t.e.Algorithm != keystore.SealSession256 && t.e.Algorithm != keystore.SealWrapping256:
		return t.loosened(k), nil
	case len(declared) > 0:
		t.e.Reseals = declared[pkcs11.CKA_WRAP_WITH_TRUSTED] == 1
	case t.trust:
		if t.e.Reseals, err = t.leaves(); err != nil {
			return k, err
		}
	}
	if t.e.Reseals {
		k = k.trusting()
	}
	return t.loosened(k), nil
}

// leaves reports whether a sealing key unwraps a throwaway key so that it may leave.
func (t trustTrial) leaves() (bool, error) {
	trial, err := t.trial(t.session, *t.e)
	if err != nil {
		return false, err
	}
	trial.bound = bindingOf(true)
	open := flagValue{pkcs11.CKA_EXTRACTABLE, false}
	outcome, err := trial.opens(t.inspector, t.session, open, false)
	return outcome == opened, err
}

// weaknesses are those of a sealing key that is for trusted wrapping.
func (t trustTrial) weaknesses(k kind) (weak []string, err error) {
	switch {
	case !t.e.Reseals && t.e.Trusted && t.e.Algorithm.Sealing():
		return []string{weakMixed}, nil // it has no CKA_WRAP_TEMPLATE
	case !t.e.Reseals:
		return nil, nil
	case !t.trust:
		weak = append(weak, weakTrust)
	}
	outcome, err := t.mixes(k)
	if err == nil && outcome != refused {
		weak = append(weak, weakMixed)
	}
	return weak, err
}

// mixes tries to wrap under a sealing key what the other sealing key unwraps.
func (t trustTrial) mixes(k kind) (outcome outcome, err error) {
	f, err := t.formOf(t.e.told[ckaAllowed])
	if err != nil {
		return unclear, err
	}
	try := func(sort []flagValue) func() error {
		return func() error {
			key, err := t.ofSort(sort)
			if err != nil {
				return err
			}
			_, err = f.wrap(t.library, t.session, t.e.handle, key, keystore.AES128CBC.Size())
			return errors.Join(err, t.destroy(t.session, key))
		}
	}
	return mustFail(try(inverse(k.sort())), try(k.sort()), quirkWrap)
}

// ofSort makes a throwaway AES key that may leave.
func (t trustTrial) ofSort(sort []flagValue) (uint, error) {
	a := keystore.AES128CBC
	if slices.Contains(sort, flagValue{pkcs11.CKA_WRAP, true}) {
		a = keystore.AESWrap128
	}
	return t.throwaway(t.session, a)
}

// copies tries to copy a trusted key with another usage, where the module says that it may
// be copied: that it may not be changed can keep it from that all the same.
func (t trustTrial) copies() (bool, error) {
	if !t.e.Copyable || !t.e.Trusted || t.e.Modifiable {
		return t.e.Copyable, nil
	}
	outcome, err := mustFail(func() error {
		key, err := t.copy(t.session, t.e.handle, template{}.flag(pkcs11.CKA_TOKEN, false).flag(pkcs11.CKA_DECRYPT, true))
		if err != nil {
			return err
		}
		return t.destroy(t.session, key)
	}, nil, quirkTemplate)
	return outcome != refused, err
}
