package hsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A ground is an attribute from which a weakness of a key follows.
type ground struct {
	weakness  string
	attribute uint
	name      string
}

func grounds() []ground {
	all := []ground{
		{"unknown", pkcs11.CKA_KEY_TYPE, "CKA_KEY_TYPE"},
		{"unknown", pkcs11.CKA_VALUE_LEN, "CKA_VALUE_LEN"},
		{"not-sensitive", pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE"},
		{"extractable", pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE"},
		{"exposed", pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE"},
		{"exposed", pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE"},
		{"imported", pkcs11.CKA_LOCAL, "CKA_LOCAL"},
		{"public", pkcs11.CKA_PRIVATE, "CKA_PRIVATE"},
		{"modifiable", pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE"},
		{"copyable", ckaCopyable, "CKA_COPYABLE"},
	}
	for _, u := range usages {
		all = append(all, ground{"usages", u.attribute, "CKA_" + strings.ToUpper(strings.ReplaceAll(u.name, "-", "_"))})
	}
	return all
}

// untold names the attributes from which one of the weaknesses follows only because the module
// does not tell them, or tells what they cannot be. That is not evidence against the key.
func (e *evidence) untold(weaknesses []string) (names []string) {
	for _, g := range grounds() {
		follows := func(w string) bool { name, _, _ := strings.Cut(w, ":"); return name == g.weakness }
		if slices.ContainsFunc(weaknesses, follows) && !e.tells(g) {
			names = append(names, g.name)
		}
	}
	return names
}

// tells reports whether the module tells an attribute as something that it can be. The type and
// length of a key that was made here match an algorithm.
func (e *evidence) tells(g ground) bool {
	b := e.told[g.attribute]
	switch n, isNumber := number(b); {
	case g.weakness == "usages":
		return !maybe(b) || len(b) == 1 && b[0] == 1
	case g.weakness != "unknown":
		return len(b) == 1 && b[0] <= 1
	case g.attribute == pkcs11.CKA_VALUE_LEN:
		return e.class != pkcs11.CKO_SECRET_KEY || isNumber && n > 0 && !e.own
	default:
		return isNumber && !e.own
	}
}

// why explains a weakness of a key.
func (e *evidence) why(weakness string) string {
	if names := e.untold([]string{weakness}); len(names) > 0 {
		return "the module does not report " + strings.Join(names, ", ") + " as it should"
	}
	return Weaknesses()[weakness]
}

// elsewhere is what to do about a key that this store did not make, and has no use for.
const elsewhere = "give it another label with the software that made it"

// weak refuses a key for its weaknesses.
func (e *evidence) weak(weaknesses []string) error {
	as, advice := "", "accept each weakness by its name, or, once nothing needs this version, destroy it"
	switch useful := e.Algorithm.Valid(); {
	case len(e.untold(weaknesses)) > 0:
		as, advice = ", as far as the module reports", "do not destroy it for that: ask the vendor of the module"
		if useful {
			advice += ", or accept each weakness by its name"
		}
	case !useful: // and it was not made here
		advice = elsewhere
	}
	return fmt.Errorf("hsm: key %q version %d: %w%s: %s; %s", e.Label, e.Version, keystore.ErrWeakKey, as, strings.Join(weaknesses, "; "), advice)
}
