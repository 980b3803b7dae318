package hsm_test

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

const (
	ckaCopyable = 0x171
	ckmKeyWrap  = 0x2109
)

var (
	keyWrap = []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmKeyWrap, nil)}
	oaep    = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil))}
)

// An attacker has the PIN of the application, and with it every PKCS #11
// function: here by being in the same process, where the login holds.
type attacker struct {
	*pkcs11.Ctx
	session pkcs11.SessionHandle
}

func newAttacker(t *testing.T, token *softhsm.Token) *attacker {
	t.Helper()
	ctx := pkcs11.New(token.Module)
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil || info.Label != token.Label {
			continue
		}
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ctx.CloseSession(session) })
		return &attacker{ctx, session}
	}
	t.Fatalf("no token %s", token.Label)
	return nil
}

func flag(attribute uint, value bool) *pkcs11.Attribute { return pkcs11.NewAttribute(attribute, value) }

// secret is the template that the store uses for an unwrapped AES key, with changes.
// MODIFIABLE is last, since SoftHSM requires that.
func secret(usages []uint, changes ...*pkcs11.Attribute) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, true), flag(pkcs11.CKA_EXTRACTABLE, false),
	}
	for _, u := range []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
		t = append(t, flag(u, bytes.Contains(asBytes(usages), []byte{byte(u >> 8), byte(u)})))
	}
	t = append(t, flag(ckaCopyable, false), flag(pkcs11.CKA_MODIFIABLE, false))
	for _, c := range changes {
		for i := range t {
			if t[i].Type == c.Type {
				t[i] = c
			}
		}
	}
	return t
}

func asBytes(usages []uint) (b []byte) {
	for _, u := range usages {
		b = append(b, byte(u>>8), byte(u))
	}
	return b
}

var (
	encrypts = []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
	wraps    = []uint{pkcs11.CKA_WRAP}
)

// value reads a key.
func (a *attacker) value(k pkcs11.ObjectHandle) ([]byte, error) {
	attributes, err := a.GetAttributeValue(a.session, k, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	if len(attributes[0].Value) == 0 {
		return nil, errors.New("no value")
	}
	return attributes[0].Value, nil
}

// carry wraps a key under one whose value the attacker knows, and opens it.
func (a *attacker) carry(k pkcs11.ObjectHandle) ([]byte, error) {
	known := make([]byte, 16)
	t := secret(wraps)
	kek, err := a.CreateObject(a.session, append(t, pkcs11.NewAttribute(pkcs11.CKA_VALUE, known)))
	if err != nil {
		return nil, err
	}
	defer a.DestroyObject(a.session, kek)
	wrapped, err := a.WrapKey(a.session, keyWrap, kek, k)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(known)
	if err != nil {
		return nil, err
	}
	return openKeyWrap(wrapped, func(b []byte) error { block.Decrypt(b, b); return nil })
}

// get tries every way to the bytes of a key.
func (a *attacker) get(k pkcs11.ObjectHandle) ([]byte, error) {
	v, err1 := a.value(k)
	if err1 == nil {
		return v, nil
	}
	v, err2 := a.carry(k)
	if err2 == nil {
		return v, nil
	}
	return nil, errors.Join(err1, err2)
}

// set changes an attribute and then tries to get the key.
func (a *attacker) set(k pkcs11.ObjectHandle, changes ...*pkcs11.Attribute) ([]byte, error) {
	err := a.SetAttributeValue(a.session, k, changes)
	v, got := a.get(k)
	if got == nil {
		return v, nil
	}
	return nil, errors.Join(err, got)
}

// copyOf copies a key with changes and then tries to get the copy.
func (a *attacker) copyOf(k pkcs11.ObjectHandle, changes ...*pkcs11.Attribute) ([]byte, error) {
	c, err := a.CopyObject(a.session, k, append(changes, flag(pkcs11.CKA_TOKEN, false)))
	if err != nil {
		return nil, err
	}
	defer a.DestroyObject(a.session, c)
	return a.get(c)
}

// unwrapped unwraps a recorded key with any template and tries to get it.
func (a *attacker) unwrapped(mechanism []*pkcs11.Mechanism, kek pkcs11.ObjectHandle, wrapped []byte, t []*pkcs11.Attribute) ([]byte, error) {
	k, err := a.UnwrapKey(a.session, mechanism, kek, wrapped, t)
	if err != nil {
		return nil, err
	}
	defer a.DestroyObject(a.session, k)
	return a.get(k)
}

// open opens a recorded AES-KW blob with a wrapping key in any way it may.
func (a *attacker) open(wrapping pkcs11.ObjectHandle, recorded []byte) ([]byte, error) {
	v, err1 := a.unwrapped(keyWrap, wrapping, recorded, secret(encrypts, flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)))
	if err1 == nil {
		return v, nil
	}
	v, err2 := openKeyWrap(recorded, func(b []byte) error {
		if err := a.DecryptInit(a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil)}, wrapping); err != nil {
			return err
		}
		p, err := a.Decrypt(a.session, b)
		copy(b, p)
		return err
	})
	if err2 == nil {
		return v, nil
	}
	return nil, errors.Join(err1, err2)
}

// openKeyWrap undoes AES Key Wrap (RFC 3394 section 2.2.2) with a function that decrypts
// one block.
func openKeyWrap(wrapped []byte, decrypt func([]byte) error) ([]byte, error) {
	n := len(wrapped)/8 - 1
	r := bytes.Clone(wrapped)
	block := make([]byte, 16)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(block, binary.BigEndian.Uint64(r)^uint64(n*j+i))
			copy(block[8:], r[8*i:8*i+8])
			if err := decrypt(block); err != nil {
				return nil, err
			}
			copy(r, block[:8])
			copy(r[8*i:], block[8:])
		}
	}
	if !bytes.Equal(r[:8], bytes.Repeat([]byte{0xa6}, 8)) {
		return nil, errors.New("it does not open")
	}
	return r[8:], nil
}
