package hsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An optional attribute of a provisioned key is one that some modules do not accept. A key
// without it may have a weakness, for which Lookup refuses it unless the configuration
// allows that weakness.
type optional struct {
	attribute uint
	name      string
	weakness  string // of a key without it, or ""
}

// optionals are the ones whose loss is worse, later.
func optionals() []optional {
	return []optional{
		{ckaAllowed, "CKA_ALLOWED_MECHANISMS", ""}, // the usages restrict the key all the same
		{ckaCopyable, "CKA_COPYABLE", "copyable"},
		{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE", "modifiable"},
		{ckaUnwrapTemplate, "CKA_UNWRAP_TEMPLATE", "unwrap-template"},
	}
}

// omissions are the sets of optional attributes to leave out, one after another: the
// smallest first, so that a key loses no more than it must.
func omissions(all []optional) [][]uint {
	var sets [][]uint
	for set := uint(1); set < 1<<len(all); set++ {
		var omit []uint
		for i, o := range all {
			if set>>i&1 == 1 {
				omit = append(omit, o.attribute)
			}
		}
		sets = append(sets, omit)
	}
	slices.SortStableFunc(sets, func(a, b []uint) int { return len(a) - len(b) })
	return sets
}

// leavingOut makes a key without those optional attributes that the module does not take,
// and returns them. A failure of the moment must not loosen the key: only a module that
// refuses the whole template twice gets one without, and where its answer could mean
// anything, only if it is sound and refuses the whole template again afterwards.
func leavingOut(all []optional, try func(omit []uint) error, sound func() error) ([]uint, error) {
	first := try(nil)
	if !mayRefuse(first) {
		return nil, first
	}
	if err := try(nil); !mayRefuse(err) {
		return nil, err
	}
	clear := quirkUnknownAttribute.is(first)
	if !clear && sound() != nil {
		return nil, first
	}
	for _, omit := range omissions(all) {
		err := try(omit)
		switch {
		case mayRefuse(err):
			continue
		case err != nil || clear:
			return omit, err
		case try(nil) == nil:
			return nil, nil
		}
		return omit, try(omit)
	}
	return nil, first
}

// mayRefuse reports whether a module may mean that it does not take the template.
func mayRefuse(err error) bool {
	return quirkUnknownAttribute.is(err) || quirkVagueAttribute.is(err)
}

// mayOmit is an error unless the configuration accepts what comes of it that a session
// key pair is made without attributes.
func (i *inspector) mayOmit(omitted []uint) error {
	for _, o := range optionals() {
		if slices.Contains(omitted, o.attribute) && o.weakness != "" && !i.allow.has(o.weakness) {
			return fmt.Errorf("hsm: the module takes no session keys with %s: %w: %s: %s", attributeNames(omitted), keystore.ErrWeakKey, o.weakness, Weaknesses()[o.weakness])
		}
	}
	return nil
}

// taken is the template of an unsealed key as the module takes it.
func (e *entry) taken(t template) template {
	if omit := e.loose.Load(); omit != nil {
		return slices.Clone(t).without(*omit)
	}
	return t
}

// loosened is a kind whose template for what it unwraps has no attribute that the module
// does not take of unsealed keys.
func (e *entry) loosened(k kind) kind {
	omit := e.loose.Load()
	if omit == nil {
		return k
	}
	known := func(all []flagValue) []flagValue {
		return slices.DeleteFunc(slices.Clone(all), func(v flagValue) bool { return slices.Contains(*omit, v.attribute) })
	}
	k.unwrapped, k.pinned = known(k.unwrapped), known(k.pinned)
	return k
}

func attributeNames(omitted []uint) string {
	var names []string
	for _, o := range optionals() {
		if slices.Contains(omitted, o.attribute) {
			names = append(names, o.name)
		}
	}
	return strings.Join(names, ", ")
}

// without removes attributes from a template, in its place, and leaves no copy of others.
func (t template) without(omit []uint) template {
	kept := 0
	for rest := t; len(rest) >= 2*word; {
		attribute, _ := number(rest[:word])
		size, _ := number(rest[word : 2*word])
		whole := 2*word + int(size+7)&^7
		if !slices.Contains(omit, attribute) {
			kept += copy(t[kept:], rest[:whole])
		}
		rest = rest[whole:]
	}
	clear(t[kept:])
	return t[:kept]
}
