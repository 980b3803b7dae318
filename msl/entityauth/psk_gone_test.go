package entityauth

import (
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestPSKSealedByNobody has an entity whose keys nothing opens: the error is one of this side,
// and says which entity it is and what to do.
func TestPSKSealedByNobody(t *testing.T) {
	store, former := soft.New(), soft.New()
	defer store.Close()
	defer former.Close()
	psk := &PSK{Store: store, Directory: sealedCamera(t, former)}
	defer psk.Close()
	_, _, err := psk.Open(t.Context(), []byte(camera))
	if !errors.Is(err, msl.ErrInternalException) {
		t.Fatal(err)
	}
	for _, want := range []string{`"camera"`, "remove the entity, and add it again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

// TestPSKGone has keys that were remembered forgotten when they are gone.
func TestPSKGone(t *testing.T) {
	store := soft.New()
	defer store.Close()
	psk := &PSK{Store: store, Directory: sealedCamera(t, store)}
	defer psk.Close()
	for _, c := range []struct {
		then func(msl.Sender)
		want int
	}{{func(s msl.Sender) { s.Proven() }, 1}, {func(s msl.Sender) { s.Gone() }, 0}} {
		sender, release, err := psk.Open(t.Context(), []byte(camera))
		if err != nil {
			t.Fatal(err)
		}
		c.then(sender)
		release()
		if n := psk.sets.cache.Len(); n != c.want {
			t.Errorf("%d remembered, want %d", n, c.want)
		}
	}
}

const camera = `{"identity":"camera"}`

// sealedCamera is an entity whose keys a store sealed.
func sealedCamera(t *testing.T, store *soft.Store) msl.StaticDirectory {
	t.Helper()
	seal := func(use string, a keystore.Algorithm, size int) []byte {
		k, err := store.Import(a, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		blob, err := store.Seal(k, msl.PSKContext(use, "camera"))
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	return msl.StaticDirectory{"camera": {Identity: "camera", Scheme: "PSK", PSK: &msl.SealedPSK{
		Encryption: seal(msl.PSKEncryption, keystore.AES128CBC, 16),
		MAC:        seal(msl.PSKMAC, keystore.HMACSHA256, 32),
		Wrapping:   seal(msl.PSKWrapping, keystore.AESWrap128, 16),
	}}}
}
