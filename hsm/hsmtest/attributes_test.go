//go:build cgo

package hsmtest_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
)

func mechanism(m uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)}
}

func attribute(typ uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(typ, value) }

// protected makes a session key that cannot be read, of 32 bytes.
func (r *rig) protected(t *testing.T, more ...*pkcs11.Attribute) pkcs11.ObjectHandle {
	t.Helper()
	k, err := r.GenerateKey(r.session, mechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN), append(more,
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_SIGN, true),
		attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, false)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (r *rig) read(o pkcs11.ObjectHandle, types ...uint) ([]*pkcs11.Attribute, error) {
	var template []*pkcs11.Attribute
	for _, typ := range types {
		template = append(template, attribute(typ, nil))
	}
	return r.GetAttributeValue(r.session, o, template)
}

// TestGarble has calls return something else than the module did.
func TestGarble(t *testing.T) {
	r := newRig(t)
	key := r.protected(t, attribute(pkcs11.CKA_LABEL, "label"))
	digest := func() []byte {
		t.Helper()
		if err := r.DigestInit(r.session, mechanism(pkcs11.CKM_SHA256)); err != nil {
			t.Fatal(err)
		}
		sum, err := r.Digest(r.session, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	want := digest()
	want[0] ^= 0xff
	r.Inject(hsmtest.Fault{Function: "C_Digest", Garble: true, Skip: 1, Times: 1})
	if got := digest(); !bytes.Equal(got, want) {
		t.Errorf("C_Digest: %x, want %x", got, want)
	}
	r.Inject(hsmtest.Fault{Garble: true, Attribute: []uint{pkcs11.CKA_LABEL}, Skip: 1})
	got, err := r.read(key, pkcs11.CKA_LABEL, pkcs11.CKA_SIGN)
	if err != nil || string(got[0].Value) != "\x93abel" || got[1].Value[0] > 1 {
		t.Errorf("C_GetAttributeValue: %v, %v", got, err)
	}
	slots, err := r.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	r.Inject(hsmtest.Fault{Function: "C_GetSlotList", Garble: true, Skip: 1})
	if garbled, err := r.GetSlotList(true); err != nil || garbled[0] != slots[0]^0xff {
		t.Errorf("C_GetSlotList: %x for %x, %v", garbled, slots, err)
	}
	find := func() []pkcs11.ObjectHandle {
		t.Helper()
		if err := r.FindObjectsInit(r.session, nil); err != nil {
			t.Fatal(err)
		}
		found, _, err := r.FindObjects(r.session, 10)
		if err := errors.Join(err, r.FindObjectsFinal(r.session)); err != nil {
			t.Fatal(err)
		}
		return found
	}
	r.Clear()
	found := find()
	r.Inject(hsmtest.Fault{Function: "C_FindObjects", Garble: true})
	if garbled := find(); len(garbled) != len(found) || garbled[0] != found[0]^0xff {
		t.Errorf("C_FindObjects: %v for %v", garbled, found)
	}
	r.Inject(hsmtest.Fault{Garble: true})
	if n, err := r.GetObjectSize(r.session, key); err == nil && n == 0 {
		t.Errorf("C_GetObjectSize: %d, %v", n, err)
	}
}

// TestLength lets the call pass with which a program asks for the length.
func TestLength(t *testing.T) {
	r := newRig(t)
	key := r.protected(t, attribute(pkcs11.CKA_LABEL, "label"))
	four := new(uint(4))

	r.Inject(hsmtest.Fault{Function: "C_Digest", Length: four, Skip: 1})
	if err := r.DigestInit(r.session, mechanism(pkcs11.CKM_SHA256)); err != nil {
		t.Fatal(err)
	}
	if sum, err := r.Digest(r.session, []byte("data")); err != nil || len(sum) != 4 {
		t.Errorf("C_Digest: %d bytes, %v", len(sum), err)
	}
	r.Inject(hsmtest.Fault{Length: four, Attribute: []uint{pkcs11.CKA_LABEL}, Skip: 1})
	got, err := r.read(key, pkcs11.CKA_LABEL)
	if err != nil || string(got[0].Value) != "labe" {
		t.Errorf("C_GetAttributeValue: %v, %v", got, err)
	}
	if got, err := r.read(key, pkcs11.CKA_SIGN); err != nil || len(got[0].Value) != 1 {
		t.Errorf("another attribute: %v, %v", got, err)
	}
	r.Inject(hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(0))})
	if err := r.FindObjectsInit(r.session, nil); err != nil {
		t.Fatal(err)
	}
	if found, _, err := r.FindObjects(r.session, 10); err != nil || len(found) != 0 {
		t.Errorf("C_FindObjects: %v, %v", found, err)
	}
	r.FindObjectsFinal(r.session)
	r.Inject(hsmtest.Fault{Function: "C_GetMechanismList", Length: four, Skip: 1})
	if list, err := r.GetMechanismList(r.slot); err != nil || len(list) != 4 {
		t.Errorf("C_GetMechanismList: %d, %v", len(list), err)
	}
}

func TestUnknownAttribute(t *testing.T) {
	r := newRig(t)
	key := r.protected(t, attribute(pkcs11.CKA_LABEL, "label"))
	r.Inject(hsmtest.Fault{Attribute: []uint{pkcs11.CKA_LABEL, pkcs11.CKA_COPYABLE}, Unknown: true})
	_, err := r.read(key, pkcs11.CKA_LABEL)
	want(t, "read", err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)
	_, err = r.read(key, pkcs11.CKA_SIGN)
	want(t, "read another", err, pkcs11.CKR_OK)
	_, err = r.generate(false)
	want(t, "generate", err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)
	want(t, "set", r.SetAttributeValue(r.session, key, []*pkcs11.Attribute{attribute(pkcs11.CKA_COPYABLE, false)}), pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)
	if n := r.Counters().Fired; n != 3 {
		t.Errorf("fired %d times", n)
	}
}

func TestUnknownMechanism(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Mechanism: []uint{pkcs11.CKM_AES_KEY_GEN}, Unknown: true})
	_, err := r.generate(false)
	want(t, "generate", err, pkcs11.CKR_MECHANISM_INVALID)
	r.protected(t)
	_, err = r.GetMechanismInfo(r.slot, mechanism(pkcs11.CKM_AES_KEY_GEN))
	want(t, "C_GetMechanismInfo", err, pkcs11.CKR_MECHANISM_INVALID)
	list, err := r.GetMechanismList(r.slot)
	if err != nil {
		t.Fatal(err)
	}
	has := func(m uint) bool {
		return slices.ContainsFunc(list, func(l *pkcs11.Mechanism) bool { return l.Mechanism == m })
	}
	if has(pkcs11.CKM_AES_KEY_GEN) || !has(pkcs11.CKM_AES_CBC) {
		t.Errorf("the list has AES_KEY_GEN %v, AES_CBC %v", has(pkcs11.CKM_AES_KEY_GEN), has(pkcs11.CKM_AES_CBC))
	}
}

// TestTold has slots, tokens and mechanisms told otherwise than they are.
func TestTold(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Listed: new(uint(300)), SetFlags: pkcs11.CKF_USER_PIN_FINAL_TRY, ClearFlags: pkcs11.CKF_ENCRYPT, KeySize: new(uint(7)), WriteProtected: true})
	list, err := r.GetMechanismList(r.slot)
	if err != nil || len(list) != 300 || !slices.ContainsFunc(list[1:], func(m *pkcs11.Mechanism) bool { return m.Mechanism == list[0].Mechanism }) {
		t.Errorf("%d mechanisms, %v", len(list), err)
	}
	info, err := r.GetMechanismInfo(r.slot, mechanism(pkcs11.CKM_AES_CBC))
	if err != nil || info.Flags&pkcs11.CKF_ENCRYPT != 0 || info.Flags&pkcs11.CKF_DECRYPT == 0 || info.MinKeySize != 7 || info.MaxKeySize != 7 {
		t.Errorf("%+v, %v", info, err)
	}
	token, err := r.GetTokenInfo(r.slot)
	const both = pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_WRITE_PROTECTED
	if err != nil || token.Flags&both != both {
		t.Errorf("flags %#x, %v", token.Flags, err)
	}
	_, err = r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	want(t, "C_OpenSession", err, pkcs11.CKR_TOKEN_WRITE_PROTECTED)
	session, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
	if err := errors.Join(err, r.CloseSession(session)); err != nil {
		t.Error(err)
	}
}

// TestToldAttributes reads a number and a truth value otherwise than they are, beside text.
func TestToldAttributes(t *testing.T) {
	r := newRig(t)
	key := r.protected(t, attribute(pkcs11.CKA_LABEL, "label"))
	r.Inject(hsmtest.Fault{Attribute: []uint{pkcs11.CKA_VALUE_LEN, pkcs11.CKA_LABEL}, Told: new(uint(16))},
		hsmtest.Fault{Attribute: []uint{pkcs11.CKA_SENSITIVE}, Told: new(uint(0))})
	got, err := r.read(key, pkcs11.CKA_VALUE_LEN, pkcs11.CKA_LABEL, pkcs11.CKA_SENSITIVE, pkcs11.CKA_SIGN)
	if err != nil || got[0].Value[0] != 16 || string(got[1].Value) != "label" || got[2].Value[0] != 0 || got[3].Value[0] != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestReveal(t *testing.T) {
	r := newRig(t)
	key := r.protected(t)
	_, err := r.read(key, pkcs11.CKA_VALUE)
	want(t, "without", err, pkcs11.CKR_ATTRIBUTE_SENSITIVE)
	r.Inject(hsmtest.Fault{Reveal: true})
	got, err := r.read(key, pkcs11.CKA_SENSITIVE, pkcs11.CKA_VALUE)
	if err != nil || got[0].Value[0] != 1 || !bytes.Equal(got[1].Value, bytes.Repeat([]byte{0x5a}, 32)) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestIgnore(t *testing.T) {
	r := newRig(t)
	types := []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE}
	for _, pretend := range []bool{false, true} {
		r.Inject(hsmtest.Fault{Ignore: true, Attribute: types, Pretend: pretend})
		key := r.protected(t)
		got, err := r.read(key, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_VALUE)
		if err != nil || len(got[2].Value) != 32 {
			t.Errorf("%v, %v", got, err)
			continue
		}
		if sensitive, extractable := got[0].Value[0] == 1, got[1].Value[0] == 1; sensitive != pretend || extractable == pretend {
			t.Errorf("pretend %v: sensitive %v, extractable %v", pretend, sensitive, extractable)
		}
	}
	r.Inject(hsmtest.Fault{Ignore: true, Attribute: []uint{pkcs11.CKA_LABEL}})
	if got, err := r.read(r.protected(t, attribute(pkcs11.CKA_LABEL, "label")), pkcs11.CKA_LABEL); err != nil || len(got[0].Value) != 0 {
		t.Errorf("label %v, %v", got, err)
	}
}

// TestIgnorePair gives each half of a pair what its own template asked.
func TestIgnorePair(t *testing.T) {
	r := newRig(t)
	types := []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_EXTRACTABLE}
	r.Inject(hsmtest.Fault{Ignore: true, Attribute: types, Pretend: true})
	p256 := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	public, private, err := r.GenerateKeyPair(r.session, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN),
		[]*pkcs11.Attribute{attribute(pkcs11.CKA_EC_PARAMS, p256), attribute(pkcs11.CKA_VERIFY, true)},
		[]*pkcs11.Attribute{attribute(pkcs11.CKA_MODIFIABLE, false), attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, false)})
	if err != nil {
		t.Fatal(err)
	}
	for key, told := range map[pkcs11.ObjectHandle]byte{public: 1, private: 0} {
		if got, err := r.read(key, pkcs11.CKA_MODIFIABLE); err != nil || got[0].Value[0] != told {
			t.Errorf("modifiable %v, %v; want %d", got, err, told)
		}
	}
	if got, err := r.read(private, pkcs11.CKA_SENSITIVE, pkcs11.CKA_VALUE); err != nil || got[0].Value[0] != 1 || len(got[1].Value) != 32 {
		t.Errorf("private key: %v, %v", got, err)
	}
}

// TestSucceed lets a module report that an invalid signature is valid.
func TestSucceed(t *testing.T) {
	r := newRig(t)
	key, err := r.GenerateKey(r.session, mechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN), []*pkcs11.Attribute{
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_VERIFY, true)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		faults []hsmtest.Fault
		code   uint
	}{
		{nil, pkcs11.CKR_SIGNATURE_INVALID},
		{[]hsmtest.Fault{{Function: "C_Verify", Succeed: true}}, pkcs11.CKR_OK},
		{[]hsmtest.Fault{{Function: "C_Verify", Succeed: true, After: true}}, pkcs11.CKR_OK},
	} {
		r.Inject(c.faults...)
		s := r.open(t)
		if err := r.VerifyInit(s, mechanism(pkcs11.CKM_SHA256_HMAC), key); err != nil {
			t.Fatal(err)
		}
		want(t, "C_Verify", r.Verify(s, []byte("data"), make([]byte, 32)), c.code)
	}
}
