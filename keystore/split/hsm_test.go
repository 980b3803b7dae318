//go:build cgo && !nopkcs11

package split_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/keystore/split"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// imitated returns what opens stores over one token on which all objects are token objects.
func imitated(t *testing.T) func(t *testing.T) *split.Store {
	t.Helper()
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("the command's tests send messages by such a token every day: set MSL_SOAK=1")
	}
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{TokenOnly: true})
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, SessionsElsewhere: true}
	made := false
	return func(t *testing.T) *split.Store {
		t.Helper()
		device, err := hsm.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		s := split.Config{}.New(device)
		t.Cleanup(func() { s.Close() })
		if !made {
			made = true
			rotate(t, s, keystore.SealingRoles()...)
		}
		return s
	}
}

// TestToken has a token that makes no session keys seal.
func TestToken(t *testing.T) {
	open := imitated(t)
	s := open(t)
	k := value[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	want := tag(t, k)
	blob := value[[]byte](t)(s.Seal(k, []byte("context")))
	if _, err := s.Unseal(keystore.HMACSHA256, blob, nil); !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("without the context: %v", err)
	}
	if u := value[keystore.Key](t)(open(t).Unseal(keystore.HMACSHA256, blob, []byte("context"))); !bytes.Equal(tag(t, u), want) {
		t.Error("unsealed, it is another key")
	}
	if objects, _ := s.Device().(*hsm.Store).Live(); objects != 0 {
		t.Errorf("%d session objects", objects)
	}
	if _, err := s.Create("wraps", keystore.AESWrap128); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("create a key that wraps: %v", err)
	}
}

// TestTokenConformance runs the suite over such a token.
func TestTokenConformance(t *testing.T) {
	open := imitated(t)
	required := slices.DeleteFunc(keystore.Algorithms(), func(a keystore.Algorithm) bool { return a == keystore.AESWrap128 })
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store { return open(t) }, required...)
}
