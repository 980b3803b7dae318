package tpm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// benchmark measures an operation of a store, and the floor: the same command as one
// string of bytes, authorized by an empty password, sent repeatedly to the same TPM. The
// store's additional cost is a session that encrypts and checks the traffic. The last of
// the three takes turns, so that other load on the machine does not change their ratio.
func benchmark(b *testing.B, s *tpm.Store, k keystore.Key, name string, raw func(handle uint32) []byte, op func() error) {
	with := func(f func(t transport.TPM, key tpm2.NamedHandle) error) error { return s.With(k, f) }
	b.Run(name+"/store", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := op(); err != nil {
				b.Fatal(err)
			}
		}
	})
	if raw == nil {
		return
	}
	b.Run(name+"/raw", func(b *testing.B) { floor(b, with, raw) })
	b.Run(name+"/ratio", func(b *testing.B) {
		var store, least time.Duration
		for b.Loop() {
			start := time.Now()
			if err := op(); err != nil {
				b.Fatal(err)
			}
			store += time.Since(start)
			least += once(b, with, raw)
		}
		b.ReportMetric(float64(store)/float64(least), "x-raw")
	})
}

// once measures one raw command.
func once(b *testing.B, with func(func(transport.TPM, tpm2.NamedHandle) error) error, raw func(handle uint32) []byte) (took time.Duration) {
	err := with(func(t transport.TPM, key tpm2.NamedHandle) error {
		command := raw(uint32(key.Handle))
		start := time.Now()
		_, err := t.Send(command)
		took = time.Since(start)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return took
}

func floor(b *testing.B, with func(func(transport.TPM, tpm2.NamedHandle) error) error, raw func(handle uint32) []byte) {
	b.Helper()
	err := with(func(t transport.TPM, key tpm2.NamedHandle) error {
		command := raw(uint32(key.Handle))
		for b.Loop() {
			answer, err := t.Send(command)
			if err != nil {
				return err
			}
			if rc := binary.BigEndian.Uint32(answer[6:]); rc != 0 {
				return fmt.Errorf("code %#x", rc)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// command puts a command together, with an empty password.
func command(cc tpm2.TPMCC, params ...[]byte) func(handle uint32) []byte {
	return func(handle uint32) []byte {
		c := []byte{0x80, 0x02, 0, 0, 0, 0}
		c = binary.BigEndian.AppendUint32(c, uint32(cc))
		c = binary.BigEndian.AppendUint32(c, handle)
		c = append(c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0)
		for _, p := range params {
			c = append(c, p...)
		}
		binary.BigEndian.PutUint32(c[2:], uint32(len(c)))
		return c
	}
}

func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func BenchmarkStore(b *testing.B) {
	s, _, _ := newStore(b)
	generate := func(a keystore.Algorithm) keystore.Key {
		k := must[keystore.Key](b)(s.Generate(a))
		b.Cleanup(func() { k.Close() })
		return k
	}
	mac := generate(keystore.HMACSHA256).(keystore.MAC)
	for _, n := range []int{32, 1024, 16384} {
		data := make([]byte, n)
		raw := command(tpm2.TPMCCMAC, sized(data), []byte{0, 0xb})
		if n > 1024 {
			raw = nil // more than one command
		}
		benchmark(b, s, mac, fmt.Sprintf("hmac/%d", n), raw,
			func() error { _, err := mac.Sum(data); return err })
	}
	c := generate(keystore.AES128CBC).(keystore.Cipher)
	iv := make([]byte, 16)
	for _, n := range []int{15, 1023, 16383} {
		data := make([]byte, n)
		raw := command(tpm2.TPMCCEncryptDecrypt2, sized(make([]byte, n+1)), []byte{0, 0, 0x42}, sized(iv))
		if n > 1024 {
			raw = nil
		}
		benchmark(b, s, c, fmt.Sprintf("encrypt/%d", n), raw,
			func() error { _, err := c.Encrypt(iv, data); return err })
	}
	digest := sha256.Sum256(nil)
	ticket := []byte{0x80, 0x24, 0x40, 0, 0, 7, 0, 0}
	for a, scheme := range map[keystore.Algorithm]byte{keystore.ECDSAP256: 0x18, keystore.RSASign2048: 0x14} {
		k := generate(a)
		benchmark(b, s, k, a.String(), command(tpm2.TPMCCSign, sized(digest[:]), []byte{0, scheme, 0, 0xb}, ticket),
			func() error { _, err := k.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256); return err })
	}
	k := generate(keystore.RSADecrypt2048)
	ciphertext := must[[]byte](b)(rsa.EncryptOAEP(sha1.New(), rand.Reader, k.(crypto.Decrypter).Public().(*rsa.PublicKey), iv, nil))
	benchmark(b, s, k, "rsa2048-decrypt", command(tpm2.TPMCCRSADecrypt, sized(ciphertext), []byte{0, 0x17, 0, 4, 0, 0}), func() error {
		_, err := k.(crypto.Decrypter).Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
		return err
	})
}

// BenchmarkKeys measures the ways of keys into the TPM, and its slots.
func BenchmarkKeys(b *testing.B) {
	s, _, _ := newStore(b)
	p := must[*tpm.ImportParent](b)(s.NewImportParent())
	defer p.Close()
	d := must[keystore.Duplicated](b)(tpm.Duplicate(p.Public(), keystore.HMACSHA256, make([]byte, 32)))
	b.Run("import/store", func(b *testing.B) { // and loads, and flushes
		b.ReportAllocs()
		for b.Loop() {
			must[keystore.Key](b)(p.Import(keystore.HMACSHA256, d)).Close()
		}
	})
	b.Run("import/raw", func(b *testing.B) {
		floor(b, p.With, command(tpm2.TPMCCImport, []byte{0, 0}, sized(d.Public), sized(d.Duplicate), sized(d.Seed), []byte{0, 0x10}))
	})
	b.Run("duplicate", func(b *testing.B) {
		for b.Loop() {
			must[keystore.Duplicated](b)(tpm.Duplicate(p.Public(), keystore.HMACSHA256, make([]byte, 32)))
		}
	})
	b.Run("generate", func(b *testing.B) {
		for b.Loop() {
			must[keystore.Key](b)(s.Generate(keystore.HMACSHA256)).Close()
		}
	})
	blob := must[[]byte](b)(s.Seal(must[keystore.Key](b)(s.Generate(keystore.HMACSHA256)), nil))
	b.Run("unseal-use-close", func(b *testing.B) {
		for b.Loop() {
			k := must[keystore.Key](b)(s.Unseal(keystore.HMACSHA256, blob, nil))
			sum(b, k)
			k.Close()
		}
	})
	var many []keystore.Key
	for range 20 {
		many = append(many, must[keystore.Key](b)(s.Generate(keystore.HMACSHA256)))
	}
	b.Run("round-robin-20", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			sum(b, many[i%len(many)])
		}
	})
}
