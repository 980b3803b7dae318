package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Weaknesses explains the names that Config.AllowWeak takes: what a provisioned
// key, or the module, may be caught at.
func Weaknesses() map[string]string {
	return map[string]string{
		"unknown":         "it is a key for none of the algorithms",
		"not-sensitive":   "its value can be read",
		"extractable":     "it can leave the token wrapped",
		"exposed":         "it was made in the token, but was readable or extractable once",
		"imported":        "it was not made in the token",
		"public":          "it can be used without a PIN",
		"modifiable":      "its usages can be changed",
		"copyable":        "it can be copied with other usages",
		"usages":          "it may do more than its one thing",
		"unwrap-template": "keys that it unwraps can be made readable, extractable or able to open recorded traffic",

		checkValue:  "the module lets the value of a sensitive key be read",
		checkRewrap: "the module wraps a key that is not extractable",
		checkLock:   "the module does not lock a key that was extractable",
		checkUnwrap: "the module does not keep an unwrapped key as closed as it was told",
		checkTamper: "the module unwraps a key that was changed",
		checkSame:   "the module unwraps another key than it wrapped",
		checkHMAC:   "the module computes another HMAC-SHA256 than RFC 2104",
		checkPeer1:  "the module does not wrap with RSA-OAEP and SHA-1",
	}
}

func checkAllowed(names []string) error {
	for _, name := range names {
		if _, known := Weaknesses()[name]; !known {
			return fmt.Errorf("hsm: no weakness is named %q", name)
		}
	}
	return nil
}

// notAllowed returns the weaknesses that the configuration does not name.
func (s *Store) notAllowed(weak []string) []string {
	return slices.DeleteFunc(slices.Clone(weak), func(w string) bool {
		name, _, _ := strings.Cut(w, ":")
		return slices.Contains(s.allow, name)
	})
}

// evidence is what an object says and shows of itself.
type evidence struct {
	keystore.Info
	handle, keyType uint
	id              []byte
}

// examine reads an object and proves what can be proven. What it cannot read it
// takes for the worse, so that an odd object hides no other.
func (s *Store) examine(session, handle, class uint) evidence {
	e := evidence{handle: handle}
	read := func(attribute uint) []byte { b, _ := s.attribute(session, handle, attribute); return b }
	is := func(attribute uint) bool { b := read(attribute); return len(b) == 1 && b[0] == 1 }
	not := func(attribute uint) bool { b := read(attribute); return len(b) != 1 || b[0] != 0 }

	e.Label, e.id = string(read(pkcs11.CKA_LABEL)), read(pkcs11.CKA_ID)
	e.Version = versionOf(e.Label, e.id)
	e.keyType, _ = number(read(pkcs11.CKA_KEY_TYPE))
	e.Sensitive, e.AlwaysSensitive = is(pkcs11.CKA_SENSITIVE), is(pkcs11.CKA_ALWAYS_SENSITIVE)
	e.Extractable, e.NeverExtractable = not(pkcs11.CKA_EXTRACTABLE), is(pkcs11.CKA_NEVER_EXTRACTABLE)
	e.Local, e.Modifiable, e.Copyable = is(pkcs11.CKA_LOCAL), not(pkcs11.CKA_MODIFIABLE), not(ckaCopyable)
	var has []uint
	all := secretUsages
	if class == pkcs11.CKO_PRIVATE_KEY {
		all = privateUsages
	}
	for _, u := range all {
		if is(u.attribute) {
			has = append(has, u.attribute)
			e.Usages = append(e.Usages, u.name)
		}
	}
	e.Mechanisms = mechanismNames(read(ckaAllowed))
	e.Algorithm = s.algorithmOf(session, e, class, has)
	e.Weaknesses = s.weaknesses(session, e, has, is(pkcs11.CKA_PRIVATE))
	return e
}

// algorithmOf tells what a key is for by what it may do. A key that may do
// more is taken for the most dangerous, and is weak.
func (s *Store) algorithmOf(session uint, e evidence, class uint, has []uint) keystore.Algorithm {
	may := func(u uint) bool { return slices.Contains(has, u) }
	size := s.sizeOf(session, e, class)
	for _, a := range keystore.Algorithms() {
		k, err := kindOf(a)
		secret := class == pkcs11.CKO_SECRET_KEY
		if err != nil || a.Secret() != secret || k.keyType != e.keyType || a.Size() != size || a.Sealing() != s.isSealLabel(e.Label) {
			continue
		}
		if a.Sealing() && s.sealLabel(a) != e.Label {
			continue
		}
		if a == keystore.AESReveal128 || a == keystore.AESUnwrap128 && may(pkcs11.CKA_UNWRAP) {
			if s.reveals(session, e.handle) != (a == keystore.AESReveal128) {
				continue
			}
		}
		if k.usages[0] == dangerous(may) || a.Sealing() && may(k.usages[0]) {
			return a
		}
	}
	return 0
}

// reveals reports whether an unwrapping key says that what it unwraps can be
// read. One that says nothing of it unwraps, and is weak.
func (s *Store) reveals(session, handle uint) bool {
	declared, err := s.nested(session, handle, ckaUnwrapTemplate)
	value, present := declared[pkcs11.CKA_SENSITIVE]
	return err == nil && present && value == 0
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

// sizeOf is the size of a key as algorithms count it.
func (s *Store) sizeOf(session uint, e evidence, class uint) int {
	switch {
	case class == pkcs11.CKO_SECRET_KEY:
		b, _ := s.attribute(session, e.handle, pkcs11.CKA_VALUE_LEN)
		n, _ := number(b)
		return int(n)
	case e.keyType == pkcs11.CKK_RSA:
		b, _ := s.attribute(session, e.handle, pkcs11.CKA_MODULUS)
		return len(b) * 8
	}
	params, _ := s.attribute(session, e.handle, pkcs11.CKA_EC_PARAMS)
	for _, a := range []keystore.Algorithm{keystore.ECDSAP256, keystore.ECDSAP384} {
		if string(params) == string(curveParams(a)) {
			return a.Size()
		}
	}
	return 0
}

var mechanismsByName = map[uint]string{
	pkcs11.CKM_AES_CBC: "CKM_AES_CBC", pkcs11.CKM_AES_CMAC: "CKM_AES_CMAC", ckmKeyWrap: "CKM_AES_KEY_WRAP",
	pkcs11.CKM_SHA256_HMAC: "CKM_SHA256_HMAC", pkcs11.CKM_RSA_PKCS: "CKM_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_OAEP: "CKM_RSA_PKCS_OAEP", pkcs11.CKM_ECDSA: "CKM_ECDSA",
}

func mechanismNames(b []byte) []string {
	var names []string
	for ; len(b) >= word; b = b[word:] {
		m, _ := number(b[:word])
		name := mechanismsByName[m]
		if name == "" {
			name = fmt.Sprintf("CKM 0x%08X", m)
		}
		names = append(names, name)
	}
	return names
}

// weaknesses says why Lookup would refuse a key.
func (s *Store) weaknesses(session uint, e evidence, has []uint, private bool) []string {
	var weak []string
	found := func(is bool, name string) {
		if is {
			weak = append(weak, name+": "+Weaknesses()[name])
		}
	}
	k, err := kindOf(e.Algorithm)
	found(err != nil, "unknown")
	found(!e.Sensitive, "not-sensitive")
	found(e.Extractable, "extractable")
	found(e.Local && !(e.AlwaysSensitive && e.NeverExtractable), "exposed")
	found(!e.Local && (e.Algorithm.Sealing() || e.Algorithm.Valid() && !e.Algorithm.Secret()), "imported")
	found(!private, "public")
	found(e.Modifiable, "modifiable")
	found(e.Copyable, "copyable")
	extra := slices.DeleteFunc(slices.Clone(has), func(u uint) bool { return slices.Contains(k.usages, u) })
	found(err == nil && len(extra) > 0, "usages")
	if slices.Contains(has, pkcs11.CKA_UNWRAP) && e.Algorithm != keystore.AESReveal128 {
		found(!s.provesTemplate(session, e, k), "unwrap-template")
	}
	return weak
}

// provesTemplate reports whether what the key unwraps is closed: by what its
// UNWRAP_TEMPLATE says, and by trying to unwrap keys that are not.
func (s *Store) provesTemplate(session uint, e evidence, k kind) bool {
	if k.unwrapped == nil {
		return false
	}
	declared, err := s.nested(session, e.handle, ckaUnwrapTemplate)
	for _, f := range k.unwrapped {
		value, present := declared[f.attribute]
		if err == nil && (!present || (value != 0) != f.value) {
			return false
		}
	}
	t, known := s.trial(session, e)
	if t == nil {
		return false
	}
	tried := true
	for _, f := range k.unwrapped {
		for _, omit := range []bool{false, true} {
			switch t.opens(s, session, f, omit) {
			case opened:
				return false
			case unclear:
				tried = tried && known
			}
		}
	}
	return err == nil || tried
}

// A trial is a wrapped key to unwrap in ways that must fail.
type trial struct {
	kek, mechanism uint
	target         kind
	wrapped        []byte
	refusal        error // what the good template gets, where wrapped is noise
}

// trial wraps a throwaway key under e. Under a key that only unwraps nothing
// known can be made: then it takes noise, and many modules still tell whether
// it was the template that they refuse.
func (s *Store) trial(session uint, e evidence) (*trial, bool) {
	t := &trial{kek: e.handle, mechanism: ckmKeyWrap}
	t.target, _ = kindOf(keystore.AES128CBC)
	raw := make([]byte, 24)
	rand.Read(raw)
	switch {
	case e.Algorithm.Sealing():
		if e.Algorithm == keystore.SealWrapping256 {
			t.target, _ = kindOf(keystore.AESWrap128)
		}
		k, err := s.generate(session, pkcs11.CKM_AES_KEY_GEN, s.templates[keystore.AES128CBC].generate)
		if err != nil {
			return nil, false
		}
		defer s.destroy(session, k.handle)
		if _, err = s.wrap(session, ckmKeyWrap, e.handle, k.handle, raw); err != nil {
			return nil, false
		}
	case e.keyType == pkcs11.CKK_RSA:
		public, err := s.publicRSA(session, e.handle)
		if err != nil {
			return nil, false
		}
		t.mechanism = pkcs11.CKM_RSA_PKCS_OAEP
		if raw, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), raw[:16], nil); err != nil {
			return nil, false
		}
	}
	t.wrapped = raw
	m, err := s.unwrap(session, t.mechanism, t.kek, raw, t.template(flagValue{}, false))
	if err == nil {
		return t, s.destroy(session, m.handle) == nil
	}
	t.refusal = err
	return t, false
}

// template is a good one but for f, which it turns round or leaves out.
func (t *trial) template(f flagValue, omit bool) template {
	out := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY).number(pkcs11.CKA_KEY_TYPE, t.target.keyType)
	out = out.flag(pkcs11.CKA_TOKEN, false).flag(pkcs11.CKA_PRIVATE, true)
	values := []flagValue{{pkcs11.CKA_SENSITIVE, true}, {pkcs11.CKA_EXTRACTABLE, false}}
	for _, u := range secretUsages {
		values = append(values, flagValue{u.attribute, slices.Contains(t.target.usages, u.attribute)})
	}
	values = append(values, flagValue{ckaCopyable, false}, flagValue{pkcs11.CKA_MODIFIABLE, false})
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

type outcome int

const (
	refused outcome = iota
	opened
	unclear
)

// opens tries to unwrap a key without the protection f.
func (t *trial) opens(s *Store, session uint, f flagValue, omit bool) outcome {
	m, err := s.unwrap(session, t.mechanism, t.kek, t.wrapped, t.template(f, omit))
	if err != nil {
		var e, good *Error
		if errors.As(err, &e) && errors.As(t.refusal, &good) && e.Code == good.Code {
			return unclear
		}
		return refused
	}
	defer s.destroy(session, m.handle)
	b, err := s.attribute(session, m.handle, f.attribute)
	if err != nil || len(b) != 1 || (b[0] == 1) != f.value {
		return opened
	}
	return refused
}
