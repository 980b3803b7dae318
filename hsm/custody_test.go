package hsm_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

// The outcomes of a function on a key, as in docs/custody.md.
const (
	nothing = "–"      // refused
	value   = "value"  // the key's value
	changed = "open"   // a key with other attributes or another value made of it
	leaves  = "leaves" // wrapped under a key that the attacker knows
	hash    = "hash"   // of the key's value
	own     = "own"    // only by its own mechanism
	other   = "any"    // by other mechanisms too
	shut    = "closed" // a key that can be used, but not extracted
	opened  = "reads"  // a key that may be read
)

// TestCustody compares docs/custody.md with the token.
func TestCustody(t *testing.T) {
	f := newField(t)
	a, all := newTrials(t, f), f.kept(t)
	t.Run("use", func(t *testing.T) { f.use(t, all) })
	t.Run("missing", func(t *testing.T) { a.missing(t, all) })
	t.Run("table", func(t *testing.T) { a.table(t, all) }) // it changes the keys without protection
}

// table tries every function of PKCS #11 that makes something of a key on every
// kind of key that is kept.
func (a *trials) table(t *testing.T, all []kept) {
	told := readCustody(t, "| key |")
	if len(told) != 1+len(all) {
		t.Errorf("docs/custody.md tells of %d keys, and there are %d", len(told)-1, len(all))
	}
	for _, k := range all {
		var row []string
		for _, column := range told[0][1:] {
			row = append(row, a.tried(t, column, k))
		}
		i := slices.IndexFunc(told, func(r []string) bool { return r[0] == k.name })
		if i < 0 || !slices.Equal(told[i][1:], row) {
			t.Errorf("docs/custody.md tells otherwise of: | %s | %s |", k.name, strings.Join(row, " | "))
		}
	}
}

// readCustody reads a table of docs/custody.md, its head first.
func readCustody(t *testing.T, head string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../docs/custody.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n"+head)
	if !found {
		t.Fatalf("docs/custody.md has no table %q", head)
	}
	for _, line := range strings.Split(head+after, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		var row []string
		for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		if !strings.HasPrefix(line, "|---") {
			rows = append(rows, row)
		}
	}
	return rows
}

// Trials are the attacker's means.
type trials struct {
	*attacker
	slot       uint
	mechanisms []uint
	data       []byte              // 16 bytes at a fixed place, for parameters that point
	plain      pkcs11.ObjectHandle // a key that may leave
	known      pkcs11.ObjectHandle // an AES key of the attacker's
	public     pkcs11.ObjectHandle // an RSA key of the attacker's
	point      []byte              // of an EC key of the attacker's
}

func newTrials(t *testing.T, f *field) *trials {
	t.Helper()
	info, err := f.a.GetSessionInfo(f.a.session)
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.a.GetMechanismList(info.SlotID)
	if err != nil {
		t.Fatal(err)
	}
	a := &trials{attacker: f.a, slot: info.SlotID, data: make([]byte, 16), plain: f.plain(t, flag(pkcs11.CKA_EXTRACTABLE, true))}
	for _, m := range list {
		a.mechanisms = append(a.mechanisms, m.Mechanism)
	}
	ec, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.point = ec.PublicKey().Bytes()
	pinner := &runtime.Pinner{}
	pinner.Pin(&a.data[0])
	t.Cleanup(pinner.Unpin)
	if a.known, err = f.a.CreateObject(f.a.session, append(secret(wraps), pkcs11.NewAttribute(pkcs11.CKA_VALUE, make([]byte, 16)))); err != nil {
		t.Fatal(err)
	}
	modulus := make([]byte, 256) // whose private half is of no interest here
	rand.Read(modulus)
	modulus[0], modulus[255] = modulus[0]|0x80, modulus[255]|1
	if a.public, err = f.a.CreateObject(f.a.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA), flag(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, modulus), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

// tried is the outcome of one column.
func (a *trials) tried(t *testing.T, column string, k kept) string {
	t.Helper()
	switch column {
	case "read":
		return a.read(k.key)
	case "set":
		return a.setAny(k.key)
	case "copy":
		return a.copyAny(k.key)
	case "wrapped":
		return a.wrapped(k.key)
	case "derive":
		return a.derive(k.key)
	case "digest":
		if _, err := a.digest(pkcs11.CKM_SHA256, nil, k.key); err == nil {
			return hash
		}
		return nothing
	case "encrypt":
		return a.admits(k, a.EncryptInit)
	case "decrypt":
		return a.admits(k, a.DecryptInit)
	case "sign":
		return a.admits(k, a.SignInit)
	case "verify":
		return a.admits(k, a.VerifyInit)
	case "wrap":
		return a.wraps(k)
	case "unwrap":
		return a.unwraps(k)
	}
	t.Fatalf("docs/custody.md has a column %q that nothing tries", column)
	return ""
}

func (a *trials) read(k pkcs11.ObjectHandle) string {
	for _, attribute := range []uint{pkcs11.CKA_VALUE, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2,
		pkcs11.CKA_EXPONENT_1, pkcs11.CKA_EXPONENT_2, pkcs11.CKA_COEFFICIENT} {
		got, err := a.GetAttributeValue(a.session, k, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
		if err == nil && len(got[0].Value) > 0 {
			return value
		}
	}
	return nothing
}

// looser are attributes that would open a key, each for itself.
func looser() []*pkcs11.Attribute {
	all := []*pkcs11.Attribute{
		flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, []byte{}), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "another"),
	}
	for _, yes := range []uint{pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_MODIFIABLE, ckaCopyable, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT,
		pkcs11.CKA_SIGN, pkcs11.CKA_SIGN_RECOVER, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
		all = append(all, flag(yes, true))
	}
	return all
}

func (a *trials) setAny(k pkcs11.ObjectHandle) string {
	for _, attribute := range looser() {
		now, err := a.GetAttributeValue(a.session, k, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute.Type, nil)})
		if err == nil && bytes.Equal(now[0].Value, attribute.Value) {
			continue
		}
		if a.SetAttributeValue(a.session, k, []*pkcs11.Attribute{attribute}) == nil {
			return changed
		}
	}
	return nothing
}

func (a *trials) copyAny(k pkcs11.ObjectHandle) string {
	for _, attribute := range append(looser(), flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_TOKEN, true)) {
		if c, err := a.CopyObject(a.session, k, []*pkcs11.Attribute{attribute}); err == nil {
			a.DestroyObject(a.session, c)
			return changed
		}
	}
	return nothing
}

// wrapped wraps the key under keys of the attacker's.
func (a *trials) wrapped(k pkcs11.ObjectHandle) string {
	for _, m := range a.mechanisms {
		for _, kek := range []pkcs11.ObjectHandle{a.known, a.public} {
			for _, p := range a.parameters(m) {
				if _, err := a.WrapKey(a.session, p, kek, k); err == nil {
					return leaves
				}
			}
		}
	}
	return nothing
}

func (a *trials) derive(k pkcs11.ObjectHandle) string {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16),
	}
	for _, m := range a.mechanisms {
		for _, p := range a.deriving(m) {
			if d, err := a.DeriveKey(a.session, p, k, template); err == nil {
				a.DestroyObject(a.session, d)
				return changed
			}
		}
	}
	return nothing
}

// admits begins an operation by every mechanism, each in a session of its own.
func (a *trials) admits(k kept, begin func(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error) string {
	outcome := nothing
	for _, m := range a.mechanisms {
		for _, p := range a.parameters(m) {
			session, err := a.OpenSession(a.slot, pkcs11.CKF_SERIAL_SESSION)
			if err == nil {
				err = begin(session, p, k.key)
				a.CloseSession(session)
			}
			switch {
			case err == nil && m != k.own:
				return other
			case err == nil:
				outcome = own
			}
		}
	}
	return outcome
}

// wraps wraps a key of the attacker's under the key.
func (a *trials) wraps(k kept) string {
	outcome := nothing
	for _, m := range a.mechanisms {
		for _, p := range a.parameters(m) {
			_, err := a.WrapKey(a.session, p, k.key, a.plain)
			switch {
			case err == nil && m != k.own:
				return other
			case err == nil:
				outcome = own
			}
		}
	}
	return outcome
}

// unwraps opens what was sealed or recorded, closed and in every other way, or
// noise, which must be refused unread.
func (a *trials) unwraps(k kept) string {
	wrapped := k.wrapped
	if wrapped == nil {
		wrapped = make([]byte, 24)
		rand.Read(wrapped)
	}
	outcome := nothing
	for _, m := range a.mechanisms {
		for _, p := range a.parameters(m) {
			if a.refuses(p, k.key, wrapped) {
				continue // whatever it is to be unwrapped as
			}
			for _, keyType := range keyTypes {
				switch a.unwrapAs(p, k, wrapped, keyType) {
				case opened:
					return opened
				case shut:
					outcome = shut
				}
			}
		}
	}
	return outcome
}

func (a *trials) unwrapAs(mechanism []*pkcs11.Mechanism, k kept, wrapped []byte, keyType uint) string {
	typed := pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType)
	for _, loose := range [][]*pkcs11.Attribute{
		{typed, flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true), flag(ckaCopyable, true), flag(pkcs11.CKA_MODIFIABLE, true)},
		{typed, flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)},
		{typed, flag(pkcs11.CKA_EXTRACTABLE, true)},
	} {
		if _, err := a.unwrapped(mechanism, k.key, wrapped, secret(k.usages, loose...)); err == nil {
			return opened
		}
	}
	// Readable keys are of no use, so some ask for no attribute but these.
	if _, err := a.unwrapped(mechanism, k.key, wrapped, readableTemplate(keyType)); err == nil {
		return opened
	}
	h, err := a.UnwrapKey(a.session, mechanism, k.key, wrapped, secret(k.usages, typed))
	if err == nil {
		a.DestroyObject(a.session, h)
		return shut
	}
	if k.wrapped == nil && !refusesKey(err) {
		return "unwraps"
	}
	return nothing
}

func readableTemplate(keyType uint) []*pkcs11.Attribute {
	return slices.DeleteFunc(secret(nil, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType), flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)),
		func(a *pkcs11.Attribute) bool { return a.Type == ckaCopyable || a.Type == pkcs11.CKA_MODIFIABLE })
}

// refuses reports whether the token refuses the key or the mechanism.
func (a *trials) refuses(mechanism []*pkcs11.Mechanism, k pkcs11.ObjectHandle, wrapped []byte) bool {
	h, err := a.UnwrapKey(a.session, mechanism, k, wrapped, secret(nil))
	if err == nil {
		a.DestroyObject(a.session, h)
		return false
	}
	return refusesKey(err)
}

// refusesKey reports whether the token refused the key or the mechanism before it looked
// at the data to unwrap.
func refusesKey(err error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains([]uint{
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
		pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, pkcs11.CKR_ARGUMENTS_BAD,
	}, uint(code))
}
