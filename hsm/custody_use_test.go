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
)

// use shows what can be done with the keys where they are: nobody keeps whoever has
// the PIN from that.
func (f *field) use(t *testing.T, all []kept) {
	byName := map[string]kept{}
	for _, k := range all {
		byName[k.name] = k
	}
	message := []byte("what was sent..!")
	recorded := bytes.Clone(message)
	block, err := aes.NewCipher(f.key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(recorded, recorded)
	cbc := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC, make([]byte, 16))}
	decrypt := func(mechanism []*pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
		if err := f.a.DecryptInit(f.a.session, mechanism, key); err != nil {
			return nil, err
		}
		return f.a.Decrypt(f.a.session, data)
	}
	through := func(mechanism []*pkcs11.Mechanism, name string) ([]byte, error) {
		k := byName[name]
		h, err := f.a.UnwrapKey(f.a.session, mechanism, k.key, k.wrapped, secret(encrypts))
		if err != nil {
			return nil, err
		}
		defer f.a.DestroyObject(f.a.session, h)
		return decrypt(cbc, h, recorded)
	}
	for name, use := range map[string]func() (got, want []byte, err error){
		"a sealed session key decrypts what was recorded": func() ([]byte, []byte, error) {
			got, err := decrypt(cbc, byName["sealed session key"].key, recorded)
			return got, message, err
		},
		"so does what a device unwraps": func() ([]byte, []byte, error) {
			got, err := through(keyWrap, "device PSK wrapping")
			return got, message, err
		},
		"and what an RSA key unwraps": func() ([]byte, []byte, error) {
			got, err := through(oaep, "RSA that unwraps")
			return got, message, err
		},
		"a key that decrypts gives recorded session keys out": func() ([]byte, []byte, error) {
			k := byName["RSA that decrypts"]
			got, err := decrypt(oaep, k.key, k.wrapped)
			return got, f.key, err
		},
		"so does a key that reveals": func() ([]byte, []byte, error) {
			k := byName["AES that reveals"]
			got, err := f.a.unwrapped(keyWrap, k.key, k.wrapped, readableTemplate(pkcs11.CKK_AES))
			return got, f.key, err
		},
		"a model group's key computes the keys of its devices": func() ([]byte, []byte, error) {
			digest := sha512.Sum384([]byte("camera"))
			want := bytes.Clone(digest[:])
			block, err := aes.NewCipher(groupKey())
			if err != nil {
				return nil, nil, err
			}
			var got []byte
			for i := 0; i < len(digest); i += 16 { // one block in CBC mode without an IV is ECB
				block.Encrypt(want[i:], want[i:])
				if err = f.a.EncryptInit(f.a.session, cbc, byName["model group"].key); err != nil {
					return nil, nil, err
				}
				b, err := f.a.Encrypt(f.a.session, digest[i:i+16])
				if err != nil {
					return nil, nil, err
				}
				got = append(got, b...)
			}
			return got, want, nil
		},
		"the sealing keys seal a key of the attacker's": func() ([]byte, []byte, error) {
			return []byte{1}, []byte{1}, f.plant(t)
		},
	} {
		if got, want, err := use(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: not so, docs/custody.md says too much: %v", name, err)
		}
	}
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

// missing asks for functions that SoftHSM does not have. Where another module has
// them, docs/custody.md says what they would give.
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
