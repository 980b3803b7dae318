package hsm

import (
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// An optional attribute of a provisioned key is one that some modules do not take. A key
// without it may have a weakness, for which it is refused when it is looked at, unless the
// configuration allows that weakness.
type optional struct {
	attribute uint
	name      string
}

// optionals are the ones whose loss is worse, later.
func optionals() []optional {
	return []optional{
		{ckaAllowed, "CKA_ALLOWED_MECHANISMS"}, // the usages restrict the key all the same
		{ckaCopyable, "CKA_COPYABLE"},
		{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE"},
		{ckaUnwrapTemplate, "CKA_UNWRAP_TEMPLATE"},
	}
}

// omissions are the sets of optional attributes to leave out, one after another: the
// smallest first, so that a key loses no more than it must.
func omissions() [][]uint {
	var sets [][]uint
	all := optionals()
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

// attributeNames are the names of omitted attributes.
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
