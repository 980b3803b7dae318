package keystore_test

import (
	"encoding/json"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Names and numbers of algorithms are in key files and in sealed keys: none may
// ever change.
func TestAlgorithms(t *testing.T) {
	all := []struct {
		algorithm       keystore.Algorithm
		number          uint8
		name            string
		size            int
		secret, sealing bool
	}{
		{keystore.AES128CBC, 1, "aes128-cbc", 16, true, false},
		{keystore.AES256CBC, 2, "aes256-cbc", 32, true, false},
		{keystore.HMACSHA256, 3, "hmac-sha256", 32, true, false},
		{keystore.AESCMAC128, 4, "aes128-cmac", 16, true, false},
		{keystore.AESWrap128, 5, "aes128-wrap", 16, true, false},
		{keystore.AESUnwrap128, 6, "aes128-unwrap", 16, true, false},
		{keystore.SealSession256, 7, "seal-session", 32, true, true},
		{keystore.SealWrapping256, 8, "seal-wrapping", 32, true, true},
		{keystore.SealMAC256, 9, "seal-mac", 32, true, true},
		{keystore.RSASign2048, 10, "rsa2048-sign", 2048, false, false},
		{keystore.RSASign3072, 11, "rsa3072-sign", 3072, false, false},
		{keystore.RSASign4096, 12, "rsa4096-sign", 4096, false, false},
		{keystore.RSAUnwrap2048, 13, "rsa2048-unwrap", 2048, false, false},
		{keystore.RSAUnwrap3072, 14, "rsa3072-unwrap", 3072, false, false},
		{keystore.RSAUnwrap4096, 15, "rsa4096-unwrap", 4096, false, false},
		{keystore.ECDSAP256, 16, "ecdsa-p256", 256, false, false},
		{keystore.ECDSAP384, 17, "ecdsa-p384", 384, false, false},
		{keystore.RSADecrypt2048, 18, "rsa2048-decrypt", 2048, false, false},
		{keystore.RSADecrypt3072, 19, "rsa3072-decrypt", 3072, false, false},
		{keystore.RSADecrypt4096, 20, "rsa4096-decrypt", 4096, false, false},
		{keystore.AESReveal128, 21, "aes128-reveal", 16, true, false},
		{keystore.HMACSHA256Block, 22, "hmac-sha256-block", 64, true, false},
		{keystore.RSAPSS2048, 23, "rsa2048-pss", 2048, false, false},
		{keystore.RSAPSS3072, 24, "rsa3072-pss", 3072, false, false},
		{keystore.RSAPSS4096, 25, "rsa4096-pss", 4096, false, false},
	}
	if n := len(keystore.Algorithms()); n != len(all) {
		t.Errorf("%d algorithms, and this table has %d", n, len(all))
	}
	for _, c := range all {
		a := c.algorithm
		if uint8(a) != c.number || a.String() != c.name || a.Size() != c.size || a.Secret() != c.secret || a.Sealing() != c.sealing || !a.Valid() {
			t.Errorf("%v is number %d of size %d, secret %t, sealing %t", a, uint8(a), a.Size(), a.Secret(), a.Sealing())
		}
		parsed, err := keystore.ParseAlgorithm(c.name)
		if err != nil || parsed != a {
			t.Errorf("%s is parsed as %v, %v", c.name, parsed, err)
		}
	}
}

func TestNoAlgorithm(t *testing.T) {
	for _, a := range []keystore.Algorithm{0, keystore.Algorithm(len(keystore.Algorithms()) + 1), 255} {
		if a.Valid() || a.Size() != 0 || a.Secret() || a.Sealing() {
			t.Errorf("%v is valid", a)
		}
		if _, err := keystore.ParseAlgorithm(a.String()); err == nil {
			t.Errorf("%v has a name that is parsed", a)
		}
	}
	for _, name := range []string{"", "aes", "AES128-CBC", "aes128-cbc "} {
		if a, err := keystore.ParseAlgorithm(name); err == nil || a != 0 {
			t.Errorf("%q is parsed as %v", name, a)
		}
	}
}

func TestAlgorithmText(t *testing.T) {
	text, err := json.Marshal(keystore.Info{Label: "key", Version: 1, Algorithm: keystore.ECDSAP256})
	if err != nil {
		t.Fatal(err)
	}
	var back keystore.Info
	if err := json.Unmarshal(text, &back); err != nil || back.Algorithm != keystore.ECDSAP256 {
		t.Errorf("%s is read as %v, %v", text, back.Algorithm, err)
	}
	if err := json.Unmarshal([]byte(`{"algorithm":"none"}`), &back); err == nil {
		t.Error("an unknown algorithm is read")
	}
}
