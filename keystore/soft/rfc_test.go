package soft

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 3394 section 4.
func TestRFC3394(t *testing.T) {
	for _, test := range []struct{ kek, data, want string }{
		{"000102030405060708090A0B0C0D0E0F", "00112233445566778899AABBCCDDEEFF",
			"1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"000102030405060708090A0B0C0D0E0F1011121314151617", "00112233445566778899AABBCCDDEEFF",
			"96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF",
			"64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"000102030405060708090A0B0C0D0E0F1011121314151617", "00112233445566778899AABBCCDDEEFF0001020304050607",
			"031D33264E15D33268F24EC260743EDCE1C6C7DDEE725A936BA814915C6762D2"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF0001020304050607",
			"A8F9BC1612C68B3FF6E6F4FBE30E71E4769C8B80A32CB8958CD5D17D6B254DA1"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		block, err := aes.NewCipher(unhex(t, test.kek))
		if err != nil {
			t.Fatal(err)
		}
		data, want := unhex(t, test.data), unhex(t, test.want)
		got, err := wrap(block, data)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrap %x: %x, %v, want %x", data, got, err, want)
		}
		back, err := unwrap(block, want)
		if err != nil || !bytes.Equal(back, data) {
			t.Errorf("unwrap %x: %x, %v", want, back, err)
		}
		for i := range want {
			want[i] ^= 1
			if _, err := unwrap(block, want); !errors.Is(err, keystore.ErrBadData) {
				t.Errorf("unwrap with byte %d changed: %v", i, err)
			}
			want[i] ^= 1
		}
	}
}

// RFC 4493 section 4, with the subkeys.
func TestRFC4493(t *testing.T) {
	block, err := aes.NewCipher(unhex(t, "2b7e151628aed2a6abf7158809cf4f3c"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCMAC(block)
	if k1 := unhex(t, "fbeed618357133667c85e08f7236a8de"); !bytes.Equal(c.k1[:], k1) {
		t.Errorf("K1 is %x, want %x", c.k1, k1)
	}
	if k2 := unhex(t, "f7ddac306ae266ccf90bc11ee46d513b"); !bytes.Equal(c.k2[:], k2) {
		t.Errorf("K2 is %x, want %x", c.k2, k2)
	}
	data := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		if got := c.sum(nil, data[:n]); hex.EncodeToString(got) != want {
			t.Errorf("tag of %d bytes: %x, want %s", n, got, want)
		}
	}
}

// RFC 4231 sections 4.2 to 4.8, without the truncated case. Its keys have any
// length, those of a store 32 bytes: a zero-padded short key is the same key
// (RFC 2104 section 2), and longer ones go to the primitive.
func TestRFC4231(t *testing.T) {
	rep := func(b string, n int) string { return strings.Repeat(b, n) }
	for _, test := range []struct{ key, data, want string }{
		{rep("0b", 20), "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{rep("aa", 20), rep("dd", 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{"0102030405060708090a0b0c0d0e0f10111213141516171819", rep("cd", 50), "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
		{rep("aa", 131), hex.EncodeToString([]byte("Test Using Larger Than Block-Size Key - Hash Key First")), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		{rep("aa", 131), hex.EncodeToString([]byte("This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.")), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
	} {
		key, data := unhex(t, test.key), unhex(t, test.data)
		m := &material{substance: &substance{unused: hmacPool(key)}}
		if len(key) <= 32 {
			var err error
			if m, err = secret(keystore.HMACSHA256, append(key, make([]byte, 32-len(key))...)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // a used state comes back from the pool
			if got := m.hmac(nil, data); hex.EncodeToString(got) != test.want {
				t.Errorf("tag %x, want %s", got, test.want)
			}
		}
	}
}
