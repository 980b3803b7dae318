package hsm_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestLongData computes with a module that takes little in one call what one computes that
// takes everything.
func TestLongData(t *testing.T) {
	whole, _ := newFaulty(t, hsm.Config{})
	sizes, limits := []int{0, 8191, 16384, 50000}, []int{16272}
	if soak() {
		sizes, limits = append(sizes, 1, 1024, 16271, 16272, 1<<20), append(limits, 4096)
	}
	for _, most := range limits {
		s, m := newFaulty(t, hsm.Config{})
		m.Inject(hsmtest.Fault{MaxPart: most})
		for _, size := range sizes {
			want, got := computed(t, whole, size), computed(t, s, size)
			for what := range want {
				if !bytes.Equal(want[what], got[what]) {
					t.Errorf("%s of %d bytes, %d in a call, is another", what, size, most)
				}
			}
		}
	}
}

// TestShortOfMemory has a module that is out of memory for a call, which is not a limit, and for the
// next one of the same length, which is taken for one.
func TestShortOfMemory(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	k, err := s.Import(keystore.HMACSHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []uint{pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY} {
		for _, times := range []int{1, 1, 2} {
			m.Inject(hsmtest.Fault{Function: "C_Sign", Code: code, Times: times, Skip: 3}, hsmtest.Fault{Function: "C_SignUpdate", Delay: 1})
			for range 6 {
				if _, err := k.(keystore.MAC).Sum(make([]byte, 3000)); err != nil {
					t.Fatal(err)
				}
			}
			if n := m.Counters().Calls["C_SignUpdate"]; (n > 0) != (times == 2) {
				t.Errorf("%#x, %d times: %d parts", code, times, n)
			}
		}
		if code == pkcs11.CKR_DEVICE_MEMORY {
			s, m = newFaulty(t, hsm.Config{})
			if k, err = s.Import(keystore.HMACSHA256, make([]byte, 32)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLowMemoryLimit has a module that always lacks memory for long data: the first operation
// finds that out.
func TestLowMemoryLimit(t *testing.T) {
	for _, code := range []uint{pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY} {
		for _, most := range []int{1 << 10, 4 << 10, 16 << 10} {
			s, m := newFaulty(t, hsm.Config{})
			k, err := s.Import(keystore.HMACSHA256, make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			m.Inject(hsmtest.Fault{MaxPart: most, Code: code})
			if _, err := k.(keystore.MAC).Sum(make([]byte, 40<<10)); err != nil {
				t.Errorf("%#x, %d bytes: %v", code, most, err)
			}
		}
	}
}

// computed is what keys make of data of a size.
func computed(t *testing.T, s *hsm.Store, size int) map[string][]byte {
	t.Helper()
	data, iv, all := bytes.Repeat([]byte{1, 2, 3}, size)[:size], bytes.Repeat([]byte{9}, 16), map[string][]byte{}
	do := func(what string, a keystore.Algorithm, op func(keystore.Key) ([]byte, error)) {
		k, err := s.Import(a, bytes.Repeat([]byte{7}, a.Size()))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if all[what], err = op(k); err != nil {
			t.Errorf("%s of %d bytes: %v", what, size, err)
		}
	}
	do("ciphertext", keystore.AES128CBC, func(k keystore.Key) ([]byte, error) { return k.(keystore.Cipher).Encrypt(iv, data) })
	do("plaintext", keystore.AES128CBC, func(k keystore.Key) ([]byte, error) { return k.(keystore.Cipher).Decrypt(iv, all["ciphertext"]) })
	do("HMAC", keystore.HMACSHA256, func(k keystore.Key) ([]byte, error) { return k.(keystore.MAC).Sum(data) })
	do("CMAC", keystore.AESCMAC128, func(k keystore.Key) ([]byte, error) { return k.(keystore.MAC).Sum(data) })
	if !bytes.Equal(all["plaintext"], data) {
		t.Errorf("%d bytes come back as others", size)
	}
	return all
}

// TestOptionalAttributesOfSessionKeys uses a module that does not know attributes of session
// keys, as openCryptoki does not: what comes of it has to be allowed by name.
func TestOptionalAttributesOfSessionKeys(t *testing.T) {
	for _, test := range []struct {
		attribute uint
		weak      string
	}{{ckaCopyable, "copyable"}, {pkcs11.CKA_MODIFIABLE, "modifiable"}} {
		token := softhsm.Temp(t)
		m := hsmtest.New(t, token.Module)
		c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
		strict := open(t, c)
		m.Inject(hsmtest.Fault{Attribute: []uint{test.attribute}, Unknown: true})
		if _, err := hsm.Open(c); err == nil || !strings.Contains(err.Error(), test.weak+": "+hsm.Weaknesses()[test.weak]) {
			t.Errorf("%s is not allowed: %v", test.weak, err)
		}
		if _, err := strict.Generate(keystore.ECDSAP256); err == nil || !strings.Contains(err.Error(), "CKA_"+strings.ToUpper(test.weak)) {
			t.Errorf("a pair where %s is not allowed: %v", test.weak, err)
		}
		if n := strict.Stats().Objects; n > 0 {
			t.Errorf("%d objects are left", n)
		}
		c.AllowWeak = []string{test.weak}
		s := open(t, c)
		seal(t, s)
		unsealEach(t, s, sealEach(t, s, 0))
		pairs := []keystore.Algorithm{keystore.ECDSAP256}
		if soak() {
			pairs = append(pairs, keystore.RSAUnwrap2048)
		}
		for _, a := range pairs {
			k, err := s.Generate(a)
			if err != nil {
				t.Fatal(test.weak, err)
			}
			k.Close()
		}
	}
}
