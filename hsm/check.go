package hsm

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Weaknesses explains the names that Config.AllowWeak takes: the faults that a provisioned
// key, or the module, may have.
func Weaknesses() map[string]string {
	return map[string]string{
		"unknown":         "it does not match any algorithm",
		"not-sensitive":   "its value can be read",
		"extractable":     "it can leave the token wrapped",
		"exposed":         "it was made in the token, but was readable or extractable once",
		"imported":        "it was not made in the token",
		"public":          "it can be used without a PIN",
		"modifiable":      "its usages can be changed",
		"copyable":        "it can be copied with other usages",
		"usages":          "it may be used for more than its purpose",
		"unwrap-template": "keys that it unwraps can be made readable, extractable or able to open recorded traffic",
		"unwrap-unproven": "nothing shows that keys which it unwraps are protected: the module does not report it, and it cannot be tested",

		weakTrust: "what it sealed can be wrapped again under a trusted key, which is only wanted with trusted wrapping (keystore.trusted-wrapping)",
		weakMixed: "it wraps what another sealing key unwraps: anyone who has the PIN could make a pre-shared wrapping key decrypt recorded traffic",

		checkTrusted:   "the module lets a key that is only for trusted wrapping keys be wrapped under others",
		checkOfficer:   "the module lets anyone who has the PIN make trusted wrapping keys",
		checkStrangers: "another key in the token is a trusted wrapping key: anyone who has the PIN can wrap sealed keys under it, and whoever made it may know it",

		weakCBC: "the module seals keys with CKM_AES_CBC_PAD: anyone who has the PIN can alter and truncate sealed keys, and read a session key with a few thousand calls of C_UnwrapKey",
		weakAny: "it also wraps with CKM_AES_CBC_PAD, since the module does not bind it to one mechanism (CKA_ALLOWED_MECHANISMS): anyone who has the PIN can use the padding as an oracle, and read a sealed key with a few thousand calls of C_UnwrapKey",
		weakGCM: "the module seals keys with CKM_AES_GCM and an initialization vector of the caller: anyone who has the PIN can use one a second time, and read a session key with one call of C_WrapKey",

		checkValue:  "the module lets the value of a sensitive key be read",
		checkRewrap: "the module wraps a key that is not extractable",
		checkLock:   "the module does not lock a key that was extractable",
		checkUnwrap: "the module leaves an unwrapped key less protected than requested",
		checkTamper: "the module unwraps a key that was changed",
		checkSame:   "the module unwraps a different key than it wrapped",
		checkHMAC:   "the module's HMAC-SHA256 differs from RFC 2104",
		checkPeer1:  "the module does not wrap with RSA-OAEP and SHA-1",
	}
}

// KeyWeaknesses are the names of Weaknesses that are about keys, and not about the module.
// With all of them in Config.AllowWeak, no key keeps a token from being opened, so that keys
// can be listed and destroyed.
func KeyWeaknesses() []string {
	return []string{"unknown", "not-sensitive", "extractable", "exposed", "imported", "public", "modifiable", "copyable", "usages", "unwrap-template", "unwrap-unproven"}
}

func checkAllowed(names []string) error {
	for _, name := range names {
		if _, known := Weaknesses()[name]; !known {
			return fmt.Errorf("hsm: unknown weakness %q", name)
		}
	}
	return nil
}

// An inspector checks the keys in a token by their attributes, and by trying what they
// must not allow. Its methods take a session that the caller holds.
type inspector struct {
	library
	prefix         string // of the labels of the sealing keys
	allow          allowance
	provisioned    bool // all keys are: session keys are elsewhere
	checkLogin     func(session uint) error
	keepsTemplates atomic.Bool // the module was seen to keep every UNWRAP_TEMPLATE
}

// An allowance is the names of the Weaknesses that the configuration accepts.
type allowance []string

func (a allowance) has(weakness string) bool { return slices.Contains(a, weakness) }

// others returns the weaknesses that are not accepted.
func (a allowance) others(weak []string) []string {
	return slices.DeleteFunc(slices.Clone(weak), func(w string) bool {
		name, _, _ := strings.Cut(w, ":")
		return a.has(name)
	})
}

// evidence is what an object reports and how it behaves.
type evidence struct {
	keystore.Info
	handle, keyType, class uint
	id                     []byte
	own                    bool   // its id shows that it was made here
	has                    []uint // usages
	size                   int    // as algorithms count it
	private                bool
	told                   map[uint][]byte // all attributes that were read
	witness                []byte          // a random key, wrapped by this sealing key
}

// asked are the attributes that evidence consists of.
var asked = []uint{
	pkcs11.CKA_CLASS, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_PRIVATE,
	pkcs11.CKA_SENSITIVE, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_NEVER_EXTRACTABLE,
	pkcs11.CKA_LOCAL, pkcs11.CKA_MODIFIABLE, ckaCopyable, ckaAllowed, pkcs11.CKA_TRUSTED,
	pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
	pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN_RECOVER, pkcs11.CKA_ALWAYS_AUTHENTICATE,
	pkcs11.CKA_VALUE_LEN, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_EC_PARAMS,
}

// toldOfRSA is the public half, which a private key may have too.
var toldOfRSA = []uint{pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT}

// read reads the attributes of an object. Those that the module does not know count as
// weak, so that an odd object does not hide others. If reading fails, the whole check
// fails.
func (i *inspector) read(session, handle uint) (evidence, error) {
	all, err := i.attributes(session, handle, asked...)
	if err != nil {
		return evidence{}, err
	}
	e := evidence{handle: handle, told: all}
	is := func(attribute uint) bool { b := all[attribute]; return len(b) == 1 && b[0] == 1 }
	not := func(attribute uint) bool { b := all[attribute]; return len(b) != 1 || b[0] != 0 }
	may := func(attribute uint) bool { return maybe(all[attribute]) }
	e.class, _ = number(all[pkcs11.CKA_CLASS])
	e.keyType, _ = number(all[pkcs11.CKA_KEY_TYPE])
	e.Label, e.id = string(all[pkcs11.CKA_LABEL]), all[pkcs11.CKA_ID]
	e.Version, e.own = versionOf(e.Label, e.id)
	e.private = is(pkcs11.CKA_PRIVATE)
	e.Sensitive, e.AlwaysSensitive = is(pkcs11.CKA_SENSITIVE), is(pkcs11.CKA_ALWAYS_SENSITIVE)
	e.Extractable, e.NeverExtractable = not(pkcs11.CKA_EXTRACTABLE), is(pkcs11.CKA_NEVER_EXTRACTABLE)
	e.Local, e.Modifiable, e.Copyable = is(pkcs11.CKA_LOCAL), not(pkcs11.CKA_MODIFIABLE), not(ckaCopyable)
	usages := secretUsages
	if e.class == pkcs11.CKO_PRIVATE_KEY {
		usages = privateUsages
	}
	for _, u := range usages {
		if may(u.attribute) {
			e.has = append(e.has, u.attribute)
			e.Usages = append(e.Usages, u.name)
		}
	}
	e.Mechanisms, e.Trusted = mechanismNames(all[ckaAllowed]), is(pkcs11.CKA_TRUSTED)
	e.measure()
	return e, nil
}

// maybe reports whether an attribute is not false, in whatever length a module tells it.
func maybe(b []byte) bool { return slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// asksEachTime reports whether each operation needs a login of its own (PKCS #11 v2.40, section
// 4.9): it would fail as if the session had lost its own.
func (e *evidence) asksEachTime() bool { return maybe(e.told[pkcs11.CKA_ALWAYS_AUTHENTICATE]) }

// measure finds the size of a key as algorithms count it.
func (e *evidence) measure() {
	switch {
	case e.class == pkcs11.CKO_SECRET_KEY:
		n, _ := number(e.told[pkcs11.CKA_VALUE_LEN])
		e.size = int(n)
	case e.keyType == pkcs11.CKK_RSA:
		e.size = new(big.Int).SetBytes(e.told[pkcs11.CKA_MODULUS]).BitLen() // some modules put a zero before it
	}
	for _, a := range []keystore.Algorithm{keystore.ECDSAP256, keystore.ECDSAP384} {
		if string(e.told[pkcs11.CKA_EC_PARAMS]) == string(curveParams(a)) {
			e.size = a.Size()
		}
	}
}

// judge proves what can be proven of an object that was read.
func (i *inspector) judge(session uint, e *evidence) (err error) {
	if e.Algorithm, err = i.algorithmOf(session, *e); err != nil {
		return err
	}
	e.Weaknesses, err = i.weaknesses(session, e)
	e.Untold = e.untold(e.Weaknesses)
	return err
}

// algorithmOf infers a key's purpose from its permitted usages. A key that may do more
// counts as the most dangerous one, and is weak.
func (i *inspector) algorithmOf(session uint, e evidence) (keystore.Algorithm, error) {
	if e.revealsBlocks() {
		return keystore.AESReveal128, nil
	}
	may := func(u uint) bool { return slices.Contains(e.has, u) }
	reveals, err := i.reveals(session, e)
	if err != nil {
		return 0, err
	}
	for _, a := range keystore.Algorithms() {
		k, err := kindOf(a)
		secret := e.class == pkcs11.CKO_SECRET_KEY
		switch {
		case err != nil || a.Secret() != secret || k.keyType != e.keyType || a.Size() != e.size || !keystore.LabelFits(i.prefix, e.Label, a):
		case a == keystore.AESReveal128 && !reveals, a == keystore.AESUnwrap128 && reveals:
		case signsRSA(k) && onlyPSS(e.Mechanisms) != (k.mechanisms[0] == pkcs11.CKM_RSA_PKCS_PSS):
		case k.usages[0] == dangerous(may) || a.Sealing() && may(k.usages[0]):
			return a, nil
		}
	}
	return 0, nil
}

// reveals reports whether an unwrapping key declares that the keys it unwraps can be read.
// A key that does not say counts as unwrapping, and is weak.
func (i *inspector) reveals(session uint, e evidence) (bool, error) {
	if !slices.Contains(e.has, pkcs11.CKA_UNWRAP) || e.size != keystore.AESReveal128.Size() {
		return false, nil
	}
	declared, err := i.declared(session, e.handle)
	value, present := declared[pkcs11.CKA_SENSITIVE]
	return present && value == 0, err
}

// declared is the UNWRAP_TEMPLATE that a key reports, or nothing if the module does not
// report it.
func (i *inspector) declared(session, handle uint) (map[uint]uint, error) {
	values, err := i.nested(session, handle, ckaUnwrapTemplate)
	if untold(err) {
		return nil, nil
	}
	return values, err
}

// dangerous is the worst usage of a key.
func dangerous(may func(uint) bool) uint {
	for _, u := range []uint{pkcs11.CKA_UNWRAP, pkcs11.CKA_WRAP, pkcs11.CKA_SIGN, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT} {
		if may(u) {
			return u
		}
	}
	return 0
}

// weaknesses says why Lookup would refuse a key.
func (i *inspector) weaknesses(session uint, e *evidence) (weak []string, err error) {
	if e.Copyable, err = (trustTrial{i, session, e}).copies(); err != nil {
		return nil, err
	}
	names := shown(*e)
	if tells, err := tellsValue(i, session, e); err != nil {
		return nil, err
	} else if tells && e.Sensitive {
		names = append(names, "not-sensitive")
	}
	if e.Algorithm.SealsKeys() {
		name, err := i.weakForm(session, e)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if slices.Contains(e.has, pkcs11.CKA_UNWRAP) && e.Algorithm != keystore.AESReveal128 {
		more, err := i.unwraps(session, e)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	for _, name := range names {
		if name != "" {
			weak = append(weak, name+": "+e.why(name))
		}
	}
	return weak, nil
}

// tellsValue tries to read the value of a key, where the module has no objects of the
// session with which that was tried before.
func tellsValue(i *inspector, session uint, e *evidence) (bool, error) {
	attribute := uint(pkcs11.CKA_VALUE)
	switch {
	case !i.bare.Load():
		return false, nil
	case e.keyType == pkcs11.CKK_RSA:
		attribute = pkcs11.CKA_PRIVATE_EXPONENT
	}
	value, err := i.attribute(session, e.handle, attribute)
	defer clear(value)
	return len(value) > 0, err
}

// shown are the weaknesses that a key's attributes report.
func shown(e evidence) (names []string) {
	found := func(is bool, name string) {
		if is {
			names = append(names, name)
		}
	}
	k, err := e.kind()
	found(err != nil, "unknown")
	found(!e.Sensitive, "not-sensitive")
	found(e.Extractable, "extractable")
	found(e.Local && !(e.AlwaysSensitive && e.NeverExtractable), "exposed")
	found(!e.Local && (e.Algorithm.Sealing() || e.Algorithm.Valid() && !e.Algorithm.Secret()), "imported")
	found(!e.private, "public")
	found(e.Modifiable, "modifiable")
	found(e.Copyable, "copyable")
	extra := slices.DeleteFunc(slices.Clone(e.has), func(u uint) bool { return slices.Contains(k.usages, u) })
	found(err == nil && len(extra) > 0, "usages")
	return names
}

// unwraps finds the weaknesses in what a key permits for keys that it unwraps.
func (i *inspector) unwraps(session uint, e *evidence) (names []string, err error) {
	declared, err := i.declared(session, e.handle)
	if err != nil {
		return nil, err
	}
	t := trustTrial{i, session, e}
	k, err := t.kindShown(declared)
	if err != nil {
		return nil, err
	}
	outcome, err := i.provesTemplate(session, e, k, declared)
	if err != nil {
		return nil, err
	}
	switch outcome {
	case opened:
		names = append(names, "unwrap-template")
	case unclear:
		names = append(names, "unwrap-unproven")
	}
	more, err := t.weaknesses(k)
	return append(names, more...), err
}

// noClass is the error for an object that does not report its class, or nothing that can be
// one, which every object must.
func noClass() error { return &Error{Function: "C_GetAttributeValue", garbage: "no CKA_CLASS"} }

// isClass reports whether a number may be the class of an object: of PKCS #11, with room for more,
// or of a vendor (CKO_VENDOR_DEFINED).
func isClass(n uint) bool { return n < 0x40 || n&0x80000000 != 0 }

// labelled reads the versions of a key: the secret and private keys with its label, except
// strangers.
func (i *inspector) labelled(session uint, label string) ([]evidence, error) {
	all, err := i.withLabel(session, label)
	if err != nil {
		return nil, err
	}
	return i.withoutStrangers(session, all)
}

func (i *inspector) withLabel(session uint, label string) ([]evidence, error) {
	all, err := i.keys(session, template{}.flag(pkcs11.CKA_TOKEN, true).add(pkcs11.CKA_LABEL, []byte(label)))
	for _, e := range all {
		if e.Label != label {
			return nil, &Error{Function: "C_GetAttributeValue", garbage: fmt.Sprintf("the CKA_LABEL %q for a key that was searched by the label %q", e.Label, label)}
		}
	}
	return all, err
}

// keys reads the secret and private keys among the objects that a template finds. A session that
// lost its login finds none.
func (i *inspector) keys(session uint, t template) ([]evidence, error) {
	handles, err := i.find(session, t)
	if err != nil {
		return nil, err
	}
	var all []evidence
	for _, h := range handles {
		e, err := i.read(session, h)
		if _, told := number(e.told[pkcs11.CKA_CLASS]); err == nil && (!told || !isClass(e.class)) {
			err = noClass()
		}
		if err != nil {
			return nil, err
		}
		if e.class == pkcs11.CKO_SECRET_KEY || e.class == pkcs11.CKO_PRIVATE_KEY {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		err = i.checkLogin(session)
	}
	return all, err
}
