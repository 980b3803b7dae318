//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// called are the functions that a child calls, from its start on.
var called = []string{
	"C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login", "C_GetSessionInfo", "C_GenerateKey", "C_CreateObject",
	"C_GetAttributeValue", "C_SetAttributeValue", "C_WrapKey", "C_UnwrapKey", "C_SignInit", "C_Sign", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt",
	"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_DigestInit", "C_DigestKey", "C_DigestFinal", "C_DestroyObject", "C_CloseSession",
}

// TestFunctions has each function crash, abort, hang and be slow while keys are made and used,
// and while a child starts again because of that: calls fail as those of a device do, and then
// the keys are the same as before.
func TestFunctions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := newWorld(t, isolated.Config{Limit: 2 * time.Second})
	var want string
	eventually(t, "a tag", func() bool { // on a busy machine even a sound module misses the limit
		tag, err := w.sealed.Sum([]byte("data"))
		want = string(tag)
		return err == nil
	})
	n := 0
	for _, function := range called {
		for _, fault := range []hsmtest.Fault{{Crash: true}, {Abort: true}, {Hang: true}, {Delay: 50 * time.Millisecond}} {
			for skip := range 3 {
				if n++; os.Getenv("MSL_SOAK") == "" && n%61 != 0 {
					continue
				}
				fault.Function, fault.Times, fault.Skip = function, 1, skip
				what := fmt.Sprintf("%+v", fault)
				w.module.Inject(fault)
				w.useAll(t, what, want)
				w.module.Clear()
				eventually(t, what+": the same key", func() bool {
					tag, err := w.sealed.Sum([]byte("data"))
					return err == nil && string(tag) == want
				})
			}
		}
	}
}

// useAll makes, seals and uses a session key, and uses one that is there.
func (w *world) useAll(t *testing.T, what, want string) {
	t.Helper()
	exchange := func() error {
		k, err := w.Generate(keystore.AES128CBC)
		if err != nil {
			return err
		}
		defer k.Close()
		if _, err := w.Seal(k, nil); err != nil {
			return err
		}
		c := k.(keystore.Cipher)
		iv := make([]byte, 16)
		b, err := c.Encrypt(iv, []byte("plaintext"))
		if err != nil {
			return err
		}
		if b, err = c.Decrypt(iv, b); err == nil && string(b) != "plaintext" {
			t.Errorf("%s: it decrypts to %q", what, b)
		}
		return err
	}
	for range 2 {
		tag, err := w.sealed.Sum([]byte("data"))
		if err == nil && string(tag) != want {
			t.Errorf("%s: another tag", what)
		}
		for _, err := range []error{err, exchange()} {
			if err != nil && !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrLost) && !errors.Is(err, keystore.ErrBusy) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}
