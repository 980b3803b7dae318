package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Attributes that miekg/pkcs11 names otherwise or not at all.
const (
	ckaUnwrapTemplate = 0x40000212
	ckaAllowed        = pkcs11.CKA_ALLOWED_MECHANISMS
	ckaCopyable       = 0x171
)

// A template is a list of attributes in the flat form of operation.h, made once and
// used for every key of its kind.
type template []byte

const word = int(unsafe.Sizeof(uint(0)))

func (t template) add(attribute uint, value []byte) template {
	t = appendWord(appendWord(t, attribute), uint(len(value)))
	t = append(t, value...)
	return append(t, make([]byte, -len(value)&7)...)
}

func (t template) flag(attribute uint, value bool) template {
	if value {
		return t.add(attribute, []byte{1})
	}
	return t.add(attribute, []byte{0})
}

func (t template) flags(value bool, attributes ...uint) template {
	for _, a := range attributes {
		t = t.flag(a, value)
	}
	return t
}

func (t template) number(attribute, value uint) template {
	return t.add(attribute, appendWord(nil, value))
}

// appendWord appends a CK_ULONG.
func appendWord(b []byte, v uint) []byte {
	if word == 4 {
		return binary.NativeEndian.AppendUint32(b, uint32(v))
	}
	return binary.NativeEndian.AppendUint64(b, uint64(v))
}

// number reads a CK_ULONG.
func number(b []byte) (uint, bool) {
	switch {
	case len(b) != word:
		return 0, false
	case word == 4:
		return uint(binary.NativeEndian.Uint32(b)), true
	}
	return uint(binary.NativeEndian.Uint64(b)), true
}

// A usage is one thing that a key may be allowed to do.
type usage struct {
	attribute uint
	name      string
}

// usages are all of them. Every template says yes or no to each that its class
// of object has: a module's defaults are not to be trusted.
var usages = []usage{
	{pkcs11.CKA_ENCRYPT, "encrypt"}, {pkcs11.CKA_DECRYPT, "decrypt"},
	{pkcs11.CKA_SIGN, "sign"}, {pkcs11.CKA_VERIFY, "verify"},
	{pkcs11.CKA_WRAP, "wrap"}, {pkcs11.CKA_UNWRAP, "unwrap"},
	{pkcs11.CKA_DERIVE, "derive"}, {pkcs11.CKA_SIGN_RECOVER, "sign-recover"},
}

// secretUsages are those that a secret key has.
var secretUsages = usages[:7]

// privateUsages are those that a private key has.
var privateUsages = []usage{usages[1], usages[2], usages[5], usages[6], usages[7]}

// A kind is how an algorithm looks in PKCS #11.
type kind struct {
	keyType    uint
	generate   uint   // the mechanism that makes it
	mechanisms []uint // the only ones that it is for, as ALLOWED_MECHANISMS
	usages     []uint // the only ones that it has

	// Of a key that unwraps: what keys that it unwraps must be, or it is weak
	// (closed), and what new keys say besides (pinned).
	unwrapped, pinned []flagValue
}

// A flagValue is one attribute of a template and the value that it must have.
type flagValue struct {
	attribute uint
	value     bool
}

// kindOf is how an algorithm looks in PKCS #11.
func kindOf(a keystore.Algorithm) (kind, error) {
	data := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN}
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{pkcs11.CKM_AES_CBC}, []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}, nil, nil}, nil
	case keystore.AESCMAC128:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{pkcs11.CKM_AES_CMAC}, []uint{pkcs11.CKA_SIGN}, nil, nil}, nil
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.SealMAC256:
		return kind{pkcs11.CKK_GENERIC_SECRET, pkcs11.CKM_GENERIC_SECRET_KEY_GEN, []uint{pkcs11.CKM_SHA256_HMAC}, []uint{pkcs11.CKA_SIGN}, nil, nil}, nil
	case keystore.AESWrap128:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{ckmKeyWrap}, []uint{pkcs11.CKA_WRAP}, nil, nil}, nil
	case keystore.AESUnwrap128:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{ckmKeyWrap}, []uint{pkcs11.CKA_UNWRAP}, closed(pkcs11.CKA_WRAP), pinned(data...)}, nil
	case keystore.AESReveal128:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{ckmKeyWrap}, []uint{pkcs11.CKA_UNWRAP}, readable(), []flagValue{{pkcs11.CKA_PRIVATE, true}}}, nil
	case keystore.SealSession256:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{ckmKeyWrap}, []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP}, closed(pkcs11.CKA_WRAP), pinned(data...)}, nil
	case keystore.SealWrapping256:
		return kind{pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, []uint{ckmKeyWrap}, []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP}, closed(pkcs11.CKA_DECRYPT), pinned(pkcs11.CKA_WRAP)}, nil
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096:
		return kind{pkcs11.CKK_RSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []uint{pkcs11.CKM_RSA_PKCS}, []uint{pkcs11.CKA_SIGN}, nil, nil}, nil
	case keystore.RSAPSS2048, keystore.RSAPSS3072, keystore.RSAPSS4096:
		return kind{pkcs11.CKK_RSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []uint{pkcs11.CKM_RSA_PKCS_PSS}, []uint{pkcs11.CKA_SIGN}, nil, nil}, nil
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return kind{pkcs11.CKK_RSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []uint{pkcs11.CKM_RSA_PKCS_OAEP}, []uint{pkcs11.CKA_UNWRAP}, closed(pkcs11.CKA_WRAP), pinned(data...)}, nil
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return kind{pkcs11.CKK_RSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []uint{pkcs11.CKM_RSA_PKCS_OAEP}, []uint{pkcs11.CKA_DECRYPT}, nil, nil}, nil
	case keystore.ECDSAP256, keystore.ECDSAP384:
		return kind{pkcs11.CKK_EC, pkcs11.CKM_EC_KEY_PAIR_GEN, []uint{pkcs11.CKM_ECDSA}, []uint{pkcs11.CKA_SIGN}, nil, nil}, nil
	}
	return kind{}, fmt.Errorf("hsm: %v: %w", a, errors.ErrUnsupported)
}

// revealsBlocks is how AESReveal128 looks in a token that makes no objects of the session,
// and so unwraps nothing that could be read: the key decrypts, and the unwrapping is done with
// that.
func revealsBlocks() kind {
	return kind{keyType: pkcs11.CKK_AES, generate: pkcs11.CKM_AES_KEY_GEN, mechanisms: []uint{pkcs11.CKM_AES_CBC}, usages: []uint{pkcs11.CKA_DECRYPT}}
}

// closed is what every key unwrapped by a provisioned key must be. Without
// UNWRAP=false and the further usage of what is unwrapped, it could be made to
// open recorded traffic; without MODIFIABLE and COPYABLE=false these usages
// could be added afterwards. MODIFIABLE comes last: SoftHSM refuses what
// follows it.
func closed(usage uint) []flagValue {
	return []flagValue{
		{pkcs11.CKA_SENSITIVE, true}, {pkcs11.CKA_EXTRACTABLE, false},
		{usage, false}, {pkcs11.CKA_UNWRAP, false},
		{ckaCopyable, false}, {pkcs11.CKA_MODIFIABLE, false},
	}
}

// pinned is what new provisioned keys demand of the keys that they unwrap, beyond
// closed: that these are not token objects, which would outlive a change of the
// PIN, that they are hidden without the PIN, and that they have no usage but some
// of may, so that nothing is derived from them. Keys of older versions do not say
// it, and are not refused for that: see notes. Every template of unwrapped keys
// says the same of these attributes, since SoftHSM wants to be told again what an
// UNWRAP_TEMPLATE lists.
func pinned(may ...uint) []flagValue {
	values := []flagValue{{pkcs11.CKA_TOKEN, false}, {pkcs11.CKA_PRIVATE, true}}
	for _, u := range secretUsages {
		if !slices.Contains(may, u.attribute) {
			values = append(values, flagValue{u.attribute, false})
		}
	}
	return values
}

// unwrapTemplate is both, each attribute once, and MODIFIABLE last.
func (k kind) unwrapTemplate() template {
	said := func(v flagValue) bool { return slices.Contains(k.unwrapped, v) }
	return nest(append(slices.DeleteFunc(slices.Clone(k.pinned), said), k.unwrapped...))
}

// readable is what every key unwrapped by a revealing key must be: of use for
// nothing but to be read at once. It is also how such a key is told from one that
// only unwraps.
func readable() []flagValue {
	values := []flagValue{{pkcs11.CKA_TOKEN, false}, {pkcs11.CKA_SENSITIVE, false}, {pkcs11.CKA_EXTRACTABLE, true}}
	for _, u := range secretUsages {
		values = append(values, flagValue{u.attribute, false})
	}
	return values
}

func nest(values []flagValue) template {
	var t template
	for _, v := range values {
		t = t.flag(v.attribute, v.value)
	}
	return t
}

// use says yes to the usages and no to all others of the class.
func (t template) use(all []usage, yes []uint) template {
	for _, u := range all {
		allowed := false
		for _, y := range yes {
			allowed = allowed || y == u.attribute
		}
		t = t.flag(u.attribute, allowed)
	}
	return t
}

// secret is the head of every template of a secret key.
func (k kind) secret(token, extractable bool) template {
	t := template{}.number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY).number(pkcs11.CKA_KEY_TYPE, k.keyType)
	t = t.flag(pkcs11.CKA_TOKEN, token).flags(true, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE)
	return t.flag(pkcs11.CKA_EXTRACTABLE, extractable).use(secretUsages, k.usages)
}

// Templates of the session keys of one algorithm.
type sessionTemplates struct {
	generate template // may be wrapped until it is sealed
	unwrap   template // the same, from a wrapped key
	unseal   template // may not be wrapped or changed
	trusting template // the same, from a sealing key that is for trusted wrapping
	leaving  template // from such a key: may be wrapped only by a trusted key
	imported template // the value goes last
}

// allSessionTemplates are those of every algorithm of session keys.
func allSessionTemplates() map[keystore.Algorithm]sessionTemplates {
	all := map[keystore.Algorithm]sessionTemplates{}
	for _, a := range keystore.Algorithms() {
		if k, err := kindOf(a); err == nil && a.Secret() && !a.Sealing() {
			all[a] = newSessionTemplates(a, k)
		}
	}
	return all
}

func newSessionTemplates(a keystore.Algorithm, k kind) sessionTemplates {
	open := func() template { return k.secret(false, true) }
	return sessionTemplates{
		generate: open().number(pkcs11.CKA_VALUE_LEN, uint(a.Size())),
		unwrap:   open(),
		unseal:   k.secret(false, false).flags(false, ckaCopyable, pkcs11.CKA_MODIFIABLE),
		trusting: k.secret(false, false).bound(),
		leaving:  k.secret(false, true).bound(),
		imported: open(),
	}
}

// allowed restricts a key to its mechanisms.
func (t template) allowed(mechanisms []uint) template {
	var list []byte
	for _, m := range mechanisms {
		list = appendWord(list, m)
	}
	return t.add(ckaAllowed, list)
}

// named names a key that is provisioned.
func (t template) named(label string, id []byte) template {
	return t.add(pkcs11.CKA_LABEL, []byte(label)).add(pkcs11.CKA_ID, id)
}

// identified names a session object, if it is to have a name. It goes first:
// MODIFIABLE is to be last.
func (t template) identified(id string) template {
	if id == "" {
		return t
	}
	named := make(template, 0, len(t)+2*word+len(id)+8)
	return append(named.add(pkcs11.CKA_ID, []byte(id)), t...)
}

const keyIDSize = 20

// keyID is the CKA_ID of one key: the hash of its label (8 bytes), its version
// (4) and a random number (8), by which whoever made it knows it from what others
// made under the same name at the same time.
func keyID(label string, version uint32) []byte {
	sum := sha256.Sum256([]byte(label))
	id := binary.BigEndian.AppendUint32(sum[:8:8], version)
	return append(id, rand.Text()[:keyIDSize-12]...)
}

// versionOf reads the version out of an identifier, where those of older releases
// end. A key that was not made here has version 1, and is not own.
func versionOf(label string, id []byte) (number uint32, own bool) {
	sum := sha256.Sum256([]byte(label))
	if (len(id) == 12 || len(id) == keyIDSize) && bytes.Equal(id[:8], sum[:8]) {
		if n := binary.BigEndian.Uint32(id[8:]); n > 0 {
			return n, true
		}
	}
	return 1, false
}

// fixed closes a provisioned key against every later change. It goes last.
func (k kind) fixed(t template) template {
	if k.mechanisms != nil {
		t = t.allowed(k.mechanisms)
	}
	if k.unwrapped != nil {
		t = t.add(ckaUnwrapTemplate, k.unwrapTemplate())
	}
	if k.trusts() {
		t = t.add(pkcs11.CKA_WRAP_TEMPLATE, nest(k.sort()))
	}
	return t.flags(false, ckaCopyable, pkcs11.CKA_MODIFIABLE)
}

// has are those of the attributes that a session pair of the kind has.
func (k kind) has(attributes []uint) []uint {
	return slices.DeleteFunc(slices.Clone(attributes), func(a uint) bool { return a == ckaUnwrapTemplate && k.unwrapped == nil })
}

// pair is the templates of a key pair. Of a session pair that unwraps, the keys
// that come out of it may be wrapped until they are sealed.
func (k kind) pair(a keystore.Algorithm, token bool, name template) (public, private template) {
	public = template{}.flag(pkcs11.CKA_TOKEN, token).flag(pkcs11.CKA_PRIVATE, false)
	switch k.keyType {
	case pkcs11.CKK_RSA:
		public = public.number(pkcs11.CKA_MODULUS_BITS, uint(a.Size())).add(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	default:
		public = public.add(pkcs11.CKA_EC_PARAMS, curveParams(a))
	}
	private = template{}.flag(pkcs11.CKA_TOKEN, token).flags(true, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE)
	private = private.flag(pkcs11.CKA_EXTRACTABLE, false).use(privateUsages, k.usages)
	if !token {
		k.mechanisms = nil
	}
	if !token && k.unwrapped != nil {
		k.unwrapped, k.pinned = []flagValue{{pkcs11.CKA_SENSITIVE, true}, {pkcs11.CKA_UNWRAP, false}}, nil
	}
	return append(public, name...), k.fixed(append(private, name...))
}

// curveID is the object identifier of RFC 5480.
func curveID(a keystore.Algorithm) asn1.ObjectIdentifier {
	if a == keystore.ECDSAP384 {
		return asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	}
	return asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
}

// curveParams is the identifier in DER.
func curveParams(a keystore.Algorithm) []byte {
	b, err := asn1.Marshal(curveID(a))
	if err != nil {
		return nil
	}
	return b
}
