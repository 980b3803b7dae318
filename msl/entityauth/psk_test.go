package entityauth

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Key sets open whichever version sealed them, by what the sealed MAC key says it
// is and not by trying.
func TestUnsealKeySet(t *testing.T) {
	store := soft.New()
	defer store.Close()
	mac := []byte("0123456789abcdef0123456789abcdef")
	seal := func(use string, a keystore.Algorithm, raw []byte) []byte {
		k, err := store.Import(a, raw)
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
	plain := seal(msl.PSKMAC, keystore.HMACSHA256, mac)
	block := seal(msl.PSKMAC, keystore.HMACSHA256Block, keystore.HMACBlock(mac))
	renamed := append([]byte{}, plain...)
	renamed[1] = byte(keystore.HMACSHA256Block)
	for name, test := range map[string]struct {
		mac []byte
		err error
	}{
		"an older version's":     {plain, nil},
		"a block":                {block, nil},
		"another name":           {renamed, keystore.ErrForeign},
		"a MAC of another kind":  {seal(msl.PSKMAC, keystore.AESCMAC128, mac[:16]), keystore.ErrForeign},
		"a MAC for other use":    {seal(msl.PSKWrapping, keystore.HMACSHA256, mac), keystore.ErrForeign},
		"nothing that is sealed": {[]byte("x"), keystore.ErrForeign},
	} {
		keys, err := unsealKeySet(store, "camera", &msl.SealedPSK{
			Encryption: seal(msl.PSKEncryption, keystore.AES128CBC, mac[:16]),
			MAC:        test.mac,
			Wrapping:   seal(msl.PSKWrapping, keystore.AESWrap128, mac[:16]),
		})
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		tag, err := keys.MAC.Sum([]byte("data"))
		want, _ := store.Import(keystore.HMACSHA256, mac)
		wanted, _ := want.(keystore.MAC).Sum([]byte("data"))
		want.Close()
		if err != nil || string(tag) != string(wanted) {
			t.Errorf("%s: another tag: %v", name, err)
		}
		keys.Release()
	}
	if objects, _ := store.Live(); objects != 0 {
		t.Errorf("%d keys open", objects)
	}
}
