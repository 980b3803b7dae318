package keystoretest

import (
	"bytes"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// alike is how many vectors of each kind are asked with -short.
const alike = 2

// testVectors asks the vectors of Project Wycheproof. With -v it prints for each file
// what agreed, and why the others were not asked. Private keys are asked of a store that
// is a [PairProvisioner]. With a key store in this machine it takes less than a second;
// -short, for devices that are slow at making keys, asks only a few of each kind.
func (s *suite) testVectors(t T) {
	for _, test := range []struct {
		name, file string
		ask        func(*vectors, wycheproof.Group, wycheproof.Vector) wycheproof.Verdict
	}{
		{"cipher", "aes_cbc_pkcs5", (*vectors).cipher},
		{"hmac", "hmac_sha256", (*vectors).hmac},
		{"hmac-block", "hmac_sha256", (*vectors).hmacBlock},
		{"cmac", "aes_cmac", (*vectors).cmac},
		{"wrap", "aes_wrap", (*vectors).wrap},
		{"unwrap", "aes_wrap", (*vectors).unwrap},
		{"reveal", "aes_wrap", (*vectors).reveal},
		{"unwrap-padded", "aes_kwp", (*vectors).unwrapPadded},
		{"reveal-padded", "aes_kwp", (*vectors).revealPadded},
		{"oaep-decrypt", "rsa_oaep_2048_sha1_mgf1sha1", (*vectors).oaepDecrypt},
		{"oaep-unwrap", "rsa_oaep_2048_sha1_mgf1sha1", (*vectors).oaepUnwrap},
		{"pkcs1-decrypt", "rsa_pkcs1_2048", (*vectors).pkcs1Decrypt},
		{"pkcs1-sign", "rsa_pkcs1_2048_sig_gen", (*vectors).pkcs1Sign},
		{"gcm", "aes_gcm", no("key stores have no AES-GCM")},
		{"pkcs1-verify", "rsa_signature_2048_sha256", no("key stores verify no signatures")},
		{"pss-verify", "rsa_pss_2048_sha256_mgf1_32", no("key stores verify no signatures")},
		{"p256-verify", "ecdsa_secp256r1_sha256", no("key stores verify no signatures")},
		{"p384-verify", "ecdsa_secp384r1_sha384", no("key stores verify no signatures")},
	} {
		t.Run(test.name, func(t T) {
			f := wycheproof.Read(t, test.file)
			if short() {
				f = f.Sample(alike)
			}
			v := &vectors{suite: s, t: t, refusals: map[int]string{}, pairs: map[string]pair{}}
			wycheproof.Ask(t, f, func(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict { return v.offered(test.ask(v, g, x)) })
			if v.missing != nil {
				t.Skip("the device does not offer it: ", v.missing)
			}
		})
	}
}

// no is the answer to every vector of a file.
func no(why string) func(*vectors, wycheproof.Group, wycheproof.Vector) wycheproof.Verdict {
	return func(*vectors, wycheproof.Group, wycheproof.Vector) wycheproof.Verdict {
		return wycheproof.NotAsked("%s", why)
	}
}

// vectors asks the vectors of one file.
type vectors struct {
	*suite
	t        T
	refusals map[int]string  // the error of data that does not open, by the length of the data
	pairs    map[string]pair // by private key
	lacks    error           // what the device does not offer, of the vector that is asked
	missing  error           // the first such
}

// opened reports whether data opened, as it did without an error. The errors of data
// that does not open must not tell what is wrong with it, apart from its length.
func (v *vectors) opened(x wycheproof.Vector, data []byte, err error) bool {
	v.t.Helper()
	if err == nil {
		return true
	}
	if v.lacking(err) {
		return false
	}
	is(v.t, x.String(), err, keystore.ErrBadData)
	if known := v.refusals[len(data)]; known != "" && known != err.Error() {
		v.t.Errorf("%v: the error is %q, and for other data of %d bytes %q", x, err, len(data), known)
	}
	v.refusals[len(data)] = err.Error()
	return false
}

// lacking notes an error that says that the device does not offer what was asked of it.
func (v *vectors) lacking(err error) bool {
	if errors.Is(err, errors.ErrUnsupported) {
		v.lacks = err
	}
	return v.lacks != nil
}

// offered is the verdict, unless the device does not offer what the vector needs.
func (v *vectors) offered(verdict wycheproof.Verdict) wycheproof.Verdict {
	if v.lacks == nil {
		return verdict
	}
	if v.missing == nil {
		v.missing = v.lacks
	}
	v.lacks = nil
	return wycheproof.NotAsked("not offered by the device")
}

// with imports a key for one vector, and asks it.
func (v *vectors) with(a keystore.Algorithm, raw []byte, ask func(keystore.Key) wycheproof.Verdict) wycheproof.Verdict {
	v.t.Helper()
	i, ok := v.store.(keystore.Importer)
	switch {
	case !ok:
		return wycheproof.NotAsked("the store imports no keys")
	case len(raw) != a.Size():
		return wycheproof.NotAsked("key of %d bytes", len(raw))
	}
	k, err := i.Import(a, raw)
	if errors.Is(err, errors.ErrUnsupported) {
		return wycheproof.NotAsked("the store has no %v keys", a)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	defer k.Close()
	return ask(k)
}

// same fails the test unless two results are equal.
func (v *vectors) same(what string, x wycheproof.Vector, got, want []byte) {
	v.t.Helper()
	if !bytes.Equal(got, want) {
		v.t.Errorf("%s of %v: %x, want %x", what, x, got, want)
	}
}

func (v *vectors) cipher(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	a := keystore.AES128CBC
	if len(x.Key) == keystore.AES256CBC.Size() {
		a = keystore.AES256CBC
	}
	return v.with(a, x.Key, func(k keystore.Key) wycheproof.Verdict {
		c := k.(keystore.Cipher)
		plain, err := c.Decrypt(x.IV, x.Ciphertext)
		if !v.opened(x, x.Ciphertext, err) {
			return wycheproof.Accepted(false)
		}
		v.same("plaintext", x, plain, x.Message)
		ciphertext, err := c.Encrypt(x.IV, x.Message)
		if err != nil {
			v.t.Errorf("%v: %v", x, err)
		}
		v.same("ciphertext", x, ciphertext, x.Ciphertext)
		return wycheproof.Accepted(true)
	})
}

func (v *vectors) hmac(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.mac(keystore.HMACSHA256, x.Key, 32, x)
}

// hmacBlock asks the keys that [keystore.HMACBlock] makes.
func (v *vectors) hmacBlock(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	block := keystore.HMACBlock(x.Key)
	if block == nil {
		return wycheproof.NotAsked("key of %d bytes", len(x.Key))
	}
	return v.mac(keystore.HMACSHA256Block, block, 32, x)
}

func (v *vectors) cmac(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.mac(keystore.AESCMAC128, x.Key, 16, x)
}

// mac asks for the whole tag, of size bytes.
func (v *vectors) mac(a keystore.Algorithm, raw []byte, size int, x wycheproof.Vector) wycheproof.Verdict {
	return v.with(a, raw, func(k keystore.Key) wycheproof.Verdict {
		if len(x.Tag) < size {
			return wycheproof.NotAsked("tag cut to %d bytes", len(x.Tag))
		}
		tag, err := k.(keystore.MAC).Sum(x.Message)
		if !v.lacking(err) && (err != nil || len(tag) != size) {
			v.t.Errorf("%v: tag of %d bytes, %v", x, len(tag), err)
		}
		return wycheproof.Accepted(bytes.Equal(tag, x.Tag))
	})
}
