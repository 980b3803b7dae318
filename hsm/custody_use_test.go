package hsm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// use shows what can be done with the keys inside the token: nothing prevents an attacker
// who has the PIN from that.
func (f *field) use(t *testing.T, all []kept) {
	p := &inPlace{field: f, kept: map[string]kept{}}
	for _, k := range all {
		p.kept[k.name] = k
	}
	message := []byte("what was sent..!")
	block, err := aes.NewCipher(f.key)
	if err != nil {
		t.Fatal(err)
	}
	p.recorded = bytes.Clone(message)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(p.recorded, p.recorded)
	for _, test := range []struct {
		name string
		use  func() ([]byte, error)
		want []byte
	}{
		{"a sealed session key decrypts what was recorded", p.sealedSession, message},
		{"so does what a device unwraps", p.through("device PSK wrapping", keyWrap), message},
		{"and what an RSA key unwraps", p.through("RSA that unwraps", oaep), message},
		{"a key that decrypts gives recorded session keys out", p.decrypts, f.key},
		{"so does a key that reveals", p.reveals, f.key},
		{"a model group's key computes the keys of its devices", p.deviceOfGroup, groupDevice(t)},
		{"the sealing keys seal a key of the attacker's", func() ([]byte, error) { return nil, f.plant(t) }, nil},
	} {
		if got, err := test.use(); err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: not so, docs/custody.md says too much: %v", test.name, err)
		}
	}
}

// An inPlace is an attacker who uses keys where they are.
type inPlace struct {
	*field
	kept     map[string]kept
	recorded []byte // a message under the session key
}

var cbc = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC, make([]byte, 16))}

func (p *inPlace) decrypt(mechanism []*pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	if err := p.a.DecryptInit(p.a.session, mechanism, key); err != nil {
		return nil, err
	}
	return p.a.Decrypt(p.a.session, data)
}

func (p *inPlace) sealedSession() ([]byte, error) {
	return p.decrypt(cbc, p.kept["sealed session key"].key, p.recorded)
}

// through unwraps the session key, closed, and decrypts with it.
func (p *inPlace) through(name string, mechanism []*pkcs11.Mechanism) func() ([]byte, error) {
	return func() ([]byte, error) {
		k := p.kept[name]
		h, err := p.a.UnwrapKey(p.a.session, mechanism, k.key, k.wrapped, secret(encrypts))
		if err != nil {
			return nil, err
		}
		defer p.a.DestroyObject(p.a.session, h)
		return p.decrypt(cbc, h, p.recorded)
	}
}

func (p *inPlace) decrypts() ([]byte, error) {
	k := p.kept["RSA that decrypts"]
	return p.decrypt(oaep, k.key, k.wrapped)
}

func (p *inPlace) reveals() ([]byte, error) {
	k := p.kept["AES that reveals"]
	return p.a.unwrapped(keyWrap, k.key, k.wrapped, readableTemplate(pkcs11.CKK_AES))
}

// deviceOfGroup computes the keys of a device from the key of its model group: one
// block in CBC mode without a vector is ECB.
func (p *inPlace) deviceOfGroup() (keys []byte, err error) {
	digest := sha512.Sum384([]byte("camera"))
	for block := digest[:]; len(block) > 0; block = block[16:] {
		if err := p.a.EncryptInit(p.a.session, cbc, p.kept["model group"].key); err != nil {
			return nil, err
		}
		b, err := p.a.Encrypt(p.a.session, block[:16])
		if err != nil {
			return nil, err
		}
		keys = append(keys, b...)
	}
	return keys, nil
}

// groupDevice is what the device has.
func groupDevice(t *testing.T) []byte {
	t.Helper()
	store := soft.New()
	defer store.Close()
	group, err := store.Import(keystore.AES128CBC, groupKey())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := entityauth.DeriveGroupKeys(group.(keystore.Cipher), "camera")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// plant seals a known key as the store would, and lets the store unseal it.
func (f *field) plant(t *testing.T) error {
	wrapped, err := f.a.WrapKey(f.a.session, keyWrap, f.kek(t, "msl-seal-session"), f.plain(t, flag(pkcs11.CKA_EXTRACTABLE, true)))
	if err != nil {
		return err
	}
	sealed := keystore.Sealed{Algorithm: keystore.AES128CBC, KEKVersion: 1, Wrapped: wrapped}
	if err := f.a.SignInit(f.a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_HMAC, nil)}, f.kek(t, "msl-seal-mac")); err != nil {
		return err
	}
	if sealed.Tag, err = f.a.Sign(f.a.session, sealed.Authenticated(nil)); err != nil {
		return err
	}
	k, err := f.s.Unseal(keystore.AES128CBC, sealed.Bytes(), nil)
	if err != nil {
		return err
	}
	return k.Close()
}

// missing calls functions that SoftHSM does not have. docs/custody.md says what they would
// reveal in another module.
func (a *trials) missing(t *testing.T, all []kept) {
	for _, k := range all {
		for name, try := range map[string]func(s pkcs11.SessionHandle) error{
			"C_GetOperationState": func(s pkcs11.SessionHandle) error {
				if err := a.DigestInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)}); err != nil {
					return err
				}
				_ = a.DigestKey(s, k.key) // an RSA key has no value to hash
				_, err := a.GetOperationState(s)
				return err
			},
			"C_SetOperationState": func(s pkcs11.SessionHandle) error {
				return a.SetOperationState(s, make([]byte, 64), k.key, k.key)
			},
			"C_SignRecoverInit": func(s pkcs11.SessionHandle) error {
				return a.SignRecoverInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(k.own, nil)}, k.key)
			},
			"C_VerifyRecoverInit": func(s pkcs11.SessionHandle) error {
				return a.VerifyRecoverInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(k.own, nil)}, k.key)
			},
			"C_DigestEncryptUpdate": func(s pkcs11.SessionHandle) error { _, err := a.DigestEncryptUpdate(s, a.data); return err },
			"C_DecryptDigestUpdate": func(s pkcs11.SessionHandle) error { _, err := a.DecryptDigestUpdate(s, a.data); return err },
			"C_SignEncryptUpdate":   func(s pkcs11.SessionHandle) error { _, err := a.SignEncryptUpdate(s, a.data); return err },
			"C_DecryptVerifyUpdate": func(s pkcs11.SessionHandle) error { _, err := a.DecryptVerifyUpdate(s, a.data); return err },
		} {
			s, err := a.OpenSession(a.slot, pkcs11.CKF_SERIAL_SESSION)
			if err != nil {
				t.Fatal(err)
			}
			if err := try(s); !errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)) {
				t.Errorf("%s with %s: %v: this module has it, so it must be judged", name, k.name, err)
			}
			a.CloseSession(s)
		}
		// The check value gives away three bytes of a ciphertext or a hash at most.
		got, err := a.GetAttributeValue(a.session, k.key, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CHECK_VALUE, nil)})
		if err == nil && len(got[0].Value) > 3 {
			t.Errorf("CKA_CHECK_VALUE of %s has %d bytes", k.name, len(got[0].Value))
		}
	}
}
