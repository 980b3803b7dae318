package keystoretest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// operations are the tests of what each algorithm computes.
type operations struct{ *suite }

// testInterfaces asks that a key can do its one thing and nothing else.
func (s operations) testInterfaces(t T) {
	able := map[keystore.Algorithm]string{
		keystore.AES128CBC:       "cipher",
		keystore.AES256CBC:       "cipher",
		keystore.HMACSHA256:      "mac",
		keystore.AESCMAC128:      "mac",
		keystore.AESWrap128:      "wrapper",
		keystore.AESUnwrap128:    "unwrapper",
		keystore.RSASign2048:     "signer",
		keystore.RSAUnwrap2048:   "unwrapper",
		keystore.ECDSAP256:       "signer",
		keystore.ECDSAP384:       "signer",
		keystore.RSADecrypt2048:  "decrypter",
		keystore.AESReveal128:    "revealer",
		keystore.HMACSHA256Block: "mac",
		keystore.RSAPSS2048:      "signer",
	}
	for a, want := range able {
		t.Run(a.String(), func(t T) {
			if got := abilities(s.pair(t, a)); got != want {
				t.Errorf("%v key is %q, want %q", a, got, want)
			}
		})
	}
}

func abilities(k keystore.Key) string {
	var able []string
	if _, ok := k.(keystore.Cipher); ok {
		able = append(able, "cipher")
	}
	if _, ok := k.(keystore.MAC); ok {
		able = append(able, "mac")
	}
	if _, ok := k.(keystore.Wrapper); ok {
		able = append(able, "wrapper")
	}
	if _, ok := k.(keystore.Unwrapper); ok {
		able = append(able, "unwrapper")
	}
	if _, ok := k.(keystore.Revealer); ok {
		able = append(able, "revealer")
	}
	if _, ok := k.(crypto.Signer); ok {
		able = append(able, "signer")
	}
	if _, ok := k.(crypto.Decrypter); ok {
		able = append(able, "decrypter")
	}
	return strings.Join(able, " ")
}

func (s operations) testCiphers(t T) {
	each(t, []keystore.Algorithm{keystore.AES128CBC, keystore.AES256CBC}, func(t T, a keystore.Algorithm) {
		t.Run("round-trip", func(t T) { roundTrip(t, s.generate(t, a).(keystore.Cipher)) })
		t.Run("padding", func(t T) { badPadding(t, s.generate(t, a).(keystore.Cipher)) })
		t.Run("sizes", func(t T) { badSizes(t, s.generate(t, a).(keystore.Cipher)) })
		t.Run("distinct", func(t T) {
			one, other := s.generate(t, a), s.generate(t, a)
			if fingerprint(t, s.store, one) == fingerprint(t, s.store, other) {
				t.Error("two generated keys are equal")
			}
		})
		t.Run("standard", func(t T) {
			raw := random(a.Size())
			standardCBC(t, s.give(t, a, raw).(keystore.Cipher), raw)
		})
	})
}

func lengths() []int { return []int{0, 1, 7, 15, 16, 17, 31, 32, 33, 1000, 4096, 70001} }

func roundTrip(t T, k keystore.Cipher) {
	for _, n := range lengths() {
		iv, plaintext := random(16), random(n)
		given := slices.Clone(plaintext)
		ciphertext, err := k.Encrypt(iv, plaintext)
		if err != nil {
			t.Fatalf("encrypt %d bytes: %v", n, err)
		}
		if !bytes.Equal(plaintext, given) {
			t.Errorf("encrypt changed its %d bytes of input", n)
		}
		if want := (n/16 + 1) * 16; len(ciphertext) != want {
			t.Errorf("%d bytes encrypt to %d, want %d", n, len(ciphertext), want)
		}
		given = slices.Clone(ciphertext)
		back, err := k.Decrypt(iv, ciphertext)
		if err != nil || !bytes.Equal(back, plaintext) {
			t.Errorf("decrypt %d bytes: %v, equal %t", n, err, bytes.Equal(back, plaintext))
		}
		if !bytes.Equal(ciphertext, given) {
			t.Errorf("decrypt changed its %d bytes of input", n)
		}
	}
}

// badPadding makes plaintexts with any padding: what is encrypted in whole
// blocks loses its own padding with the last block.
func badPadding(t T, k keystore.Cipher) {
	block := func(head byte, tail ...byte) []byte {
		return append(bytes.Repeat([]byte{head}, 32-len(tail)), tail...)
	}
	for _, test := range []struct {
		plaintext []byte
		keep      int // bytes left after unpadding, or -1
	}{
		{block(0xaa, 1), 31},
		{block(0xaa, 1, 1), 31},
		{block(0xaa, 2, 2), 30},
		{block(0xaa, bytes.Repeat([]byte{16}, 16)...), 16},
		{block(0xaa, 0), -1},
		{block(0), -1},
		{block(0xaa, 17), -1},
		{block(17), -1},
		{block(0xaa, 255), -1},
		{block(0xaa, 1, 2), -1},
		{block(0xaa, 2, 3, 3), -1},
		{block(0xaa, append([]byte{15}, bytes.Repeat([]byte{16}, 15)...)...), -1},
	} {
		iv := random(16)
		ciphertext, err := k.Encrypt(iv, test.plaintext)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Decrypt(iv, ciphertext[:32])
		if test.keep < 0 {
			is(t, "decrypt "+hex.EncodeToString(test.plaintext), err, keystore.ErrBadData)
			if len(got) != 0 {
				t.Errorf("decrypt gave %d bytes beside its error", len(got))
			}
		} else if err != nil || !bytes.Equal(got, test.plaintext[:test.keep]) {
			t.Errorf("decrypt %x: %x, %v", test.plaintext, got, err)
		}
	}
}

func badSizes(t T, k keystore.Cipher) {
	iv := random(16)
	ciphertext, err := k.Encrypt(iv, random(40))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 15, 17, 31, 47} {
		_, err := k.Decrypt(iv, ciphertext[:n])
		is(t, "decrypt cut-off ciphertext", err, keystore.ErrBadData)
	}
	_, err = k.Decrypt(iv, nil)
	is(t, "decrypt nil", err, keystore.ErrBadData)
	for _, n := range []int{0, 8, 15, 17, 32} {
		if _, err := k.Encrypt(random(n), ciphertext); err == nil {
			t.Errorf("encrypt took an initialization vector of %d bytes", n)
		}
		_, err := k.Decrypt(random(n), ciphertext)
		is(t, "decrypt with an initialization vector of another size", err, keystore.ErrBadData)
	}
	if _, err := k.Decrypt(iv, ciphertext); err != nil {
		t.Errorf("the key does not decrypt after refusals: %v", err)
	}
}

func standardCBC(t T, k keystore.Cipher, raw []byte) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range lengths() {
		iv, plaintext := random(16), random(n)
		padding := 16 - n%16
		want := append(slices.Clone(plaintext), bytes.Repeat([]byte{byte(padding)}, padding)...)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, want)
		got, err := k.Encrypt(iv, plaintext)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes encrypt otherwise than with crypto/aes (%v)", n, err)
		}
		got, err = k.Decrypt(iv, want)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes of crypto/aes do not decrypt (%v)", n, err)
		}
		before := append(make([]byte, 0, 200), "before"...)
		got, err = keystore.AppendEncrypt(k, before, iv, plaintext)
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%d bytes are appended otherwise than they encrypt (%v)", n, err)
		}
		got, err = keystore.AppendDecrypt(k, before, iv, want)
		if err != nil || !bytes.Equal(got, append([]byte("before"), plaintext...)) {
			t.Errorf("%d bytes are appended otherwise than they decrypt (%v)", n, err)
		}
	}
}

func (s operations) testMACs(t T) {
	each(t, []keystore.Algorithm{keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128}, func(t T, a keystore.Algorithm) {
		t.Run("distinct", func(t T) {
			one, other := s.generate(t, a), s.generate(t, a)
			if fingerprint(t, s.store, one) == fingerprint(t, s.store, other) {
				t.Error("two generated keys are equal")
			}
		})
		t.Run("standard", func(t T) {
			raw := random(a.Size())
			s.standardMAC(t, s.give(t, a, raw).(keystore.MAC), raw)
		})
	})
	t.Run("rfc4493", s.testRFC4493)
	t.Run("block", s.testBlock)
}

// testBlock asks that a key computes the same tags as a whole block.
func (s operations) testBlock(t T) {
	raw := random(32)
	k := s.give(t, keystore.HMACSHA256, raw)
	block := s.give(t, keystore.HMACSHA256Block, keystore.HMACBlock(raw))
	if fingerprint(t, s.store, k) != fingerprint(t, s.store, block) {
		t.Error("a key and its block compute different tags")
	}
	s.standardMAC(t, block.(keystore.MAC), raw)
}

func (s operations) standardMAC(t T, k keystore.MAC, raw []byte) {
	for _, n := range lengths() {
		data := random(n)
		var want []byte
		if k.Algorithm() != keystore.AESCMAC128 {
			h := hmac.New(sha256.New, raw)
			h.Write(data)
			want = h.Sum(nil)
		} else {
			want, _ = s.softKey(t, keystore.AESCMAC128, raw).(keystore.MAC).Sum(data)
		}
		got, err := k.Sum(data)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("tag of %d bytes: %x, %v, want %x", n, got, err, want)
		}
		got, err = keystore.AppendSum(k, append(make([]byte, 0, 100), "before"...), data)
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("appended tag of %d bytes: %x, %v, want %x", n, got, err, want)
		}
	}
}

func (s operations) testRFC4493(t T) {
	key, _ := hex.DecodeString("2b7e151628aed2a6abf7158809cf4f3c")
	data, _ := hex.DecodeString("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	k := s.give(t, keystore.AESCMAC128, key).(keystore.MAC)
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		got, err := k.Sum(data[:n])
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("tag of %d bytes: %x, %v, want %s", n, got, err, want)
		}
	}
}

func (s operations) testSigners(t T) {
	each(t, []keystore.Algorithm{keystore.RSASign2048, keystore.ECDSAP256, keystore.ECDSAP384, keystore.RSAPSS2048}, func(t T, a keystore.Algorithm) {
		signs(t, s.pair(t, a))
	})
}

// signsPSS asks that k signs as RSASSA-PSS with each hash, and not otherwise.
func signsPSS(t T, k keystore.Key) {
	t.Helper()
	signer := k.(crypto.Signer)
	checkPublic(t, k.Algorithm(), signer.Public())
	public := signer.Public().(*rsa.PublicKey)
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		digest := random(hash.Size())
		for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, hash.Size()} {
			options := &rsa.PSSOptions{SaltLength: salt, Hash: hash}
			signature, err := signer.Sign(rand.Reader, digest, options)
			if err != nil {
				t.Fatalf("%v: %v", hash, err)
			}
			if err := rsa.VerifyPSS(public, hash, digest, signature, &rsa.PSSOptions{SaltLength: hash.Size()}); err != nil {
				t.Errorf("%v: %v", hash, err)
			}
		}
		for what, options := range map[string]crypto.SignerOpts{
			"PKCS #1 v1.5": hash, "no options": nil, "no salt to speak of": &rsa.PSSOptions{SaltLength: 8, Hash: hash},
			"a salt of any length": &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: hash}, "SHA-1": &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA1},
		} {
			if _, err := signer.Sign(rand.Reader, digest, options); err == nil {
				t.Errorf("%v: signed with %s", hash, what)
			}
		}
		if _, err := signer.Sign(rand.Reader, digest[1:], &rsa.PSSOptions{SaltLength: hash.Size(), Hash: hash}); err == nil {
			t.Errorf("%v: signed a digest that is too short", hash)
		}
	}
}

// signs asks that k signs, and signs nothing but digests of its algorithm.
func signs(t T, k keystore.Key) {
	t.Helper()
	if k.Algorithm().PSS() {
		signsPSS(t, k)
		return
	}
	signer := k.(crypto.Signer)
	checkPublic(t, k.Algorithm(), signer.Public())
	digest := sha256.Sum256([]byte("signed"))
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !verify(signer.Public(), crypto.SHA256, digest[:], signature) {
		t.Errorf("signature %x does not verify", signature)
	}
	digest[0] ^= 1
	if verify(signer.Public(), crypto.SHA256, digest[:], signature) {
		t.Error("signature verifies another digest")
	}
	if k.Algorithm() == keystore.ECDSAP384 {
		long := sha512.Sum384([]byte("signed"))
		signature, err := signer.Sign(rand.Reader, long[:], crypto.SHA384)
		if err != nil || !verify(signer.Public(), crypto.SHA384, long[:], signature) {
			t.Errorf("SHA-384: %v, or the signature does not verify", err)
		}
	}
	if _, err := signer.Sign(rand.Reader, digest[:20], crypto.SHA1); err == nil {
		t.Error("signed a SHA-1 digest")
	}
	if _, err := signer.Sign(rand.Reader, digest[:31], crypto.SHA256); err == nil {
		t.Error("signed a digest of 31 bytes")
	}
	if _, isRSA := signer.Public().(*rsa.PublicKey); isRSA {
		pss := &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
		if _, err := signer.Sign(rand.Reader, digest[:], pss); err == nil {
			t.Error("signed with RSA-PSS")
		}
	}
}

func checkPublic(t T, a keystore.Algorithm, public crypto.PublicKey) {
	t.Helper()
	bits := 0
	switch public := public.(type) {
	case *rsa.PublicKey:
		bits = public.N.BitLen()
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() || public.Curve == elliptic.P384() {
			bits = public.Params().BitSize
		}
	}
	if bits != a.Size() {
		t.Fatalf("%v has a public key %T of %d bits", a, public, bits)
	}
}

func verify(public crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, digest, signature)
	}
	return false
}
