package keystoretest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// revealing are the tests of what brings bytes into this process.
type revealing struct{ *suite }

// dataWrapper makes a wrapping key of given bytes.
func (s revealing) dataWrapper(t T, raw []byte) keystore.DataWrapper {
	t.Helper()
	w, ok := s.give(t, keystore.AESWrap128, raw).(keystore.DataWrapper)
	if !ok {
		t.Skip("wrapping keys wrap no data")
	}
	return w
}

// testReveal reveals what the software peer wrapped, keys and other bytes, and
// nothing else.
func (s revealing) testReveal(t T) {
	shared := random(16)
	r := s.give(t, keystore.AESReveal128, shared).(keystore.Revealer)
	peer := s.softKey(t, keystore.AESWrap128, shared).(keystore.DataWrapper)
	for _, n := range []int{16, 24, 32, 112, 128, 1024} {
		raw := random(n)
		wrapped, err := peer.WrapData(raw)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Reveal(wrapped)
		if err != nil || !bytes.Equal(got, raw) {
			t.Fatalf("reveal %d bytes: %v, equal %t", n, err, bytes.Equal(got, raw))
		}
		for i := 0; i < len(wrapped); i += max(7, len(wrapped)/8) { // a TPM takes thousands of commands each
			forged := bytes.Clone(wrapped)
			forged[i] ^= 0x10
			s.revealsNot(t, r, "a changed byte", forged)
		}
		s.revealsNot(t, r, "cut-off data", wrapped[:len(wrapped)-8])
		s.revealsNot(t, r, "longer data", append(bytes.Clone(wrapped), random(8)...))
	}
	for _, n := range []int{0, 1, 8, 16, 23, 25, 40} {
		s.revealsNot(t, r, "noise", random(n))
	}
	for _, a := range movable() {
		raw := random(a.Size())
		wrapped, err := peer.Wrap(s.softKey(t, a, raw))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Reveal(wrapped); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("reveal a key for %v: %v", a, err)
		}
	}
	_, err := s.store.Seal(r, nil)
	is(t, "seal a key that reveals", err, errors.ErrUnsupported)
}

func (s revealing) revealsNot(t T, r keystore.Revealer, what string, wrapped []byte) {
	t.Helper()
	got, err := r.Reveal(wrapped)
	is(t, "reveal "+what, err, keystore.ErrBadData)
	if len(got) > 0 {
		t.Errorf("reveal %s: %d bytes beside the error", what, len(got))
	}
}

// testWrapData wraps bytes, and lets the software peer look at them.
func (s revealing) testWrapData(t T) {
	shared := random(16)
	w := s.dataWrapper(t, shared)
	peer := s.softKey(t, keystore.AESReveal128, shared).(keystore.Revealer)
	for _, n := range []int{16, 24, 112, 128, 1024} {
		raw := random(n)
		given := bytes.Clone(raw)
		wrapped, err := w.WrapData(raw)
		if err != nil || len(wrapped) != n+8 {
			t.Fatalf("wrap %d bytes: %d, %v", n, len(wrapped), err)
		}
		if !bytes.Equal(raw, given) {
			t.Error("wrapping changed its input")
		}
		if got, err := peer.Reveal(wrapped); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("the peer reveals other bytes: %v", err)
		}
	}
	for _, n := range []int{0, 1, 8, 15, 17, 100} {
		_, err := w.WrapData(random(n))
		is(t, "wrap data of an odd size", err, keystore.ErrBadData)
	}
	s.seal(t, w, nil)
	if _, err := w.WrapData(random(16)); err != nil {
		t.Errorf("a sealed wrapping key wraps no data: %v", err)
	}
}

func oaep() *rsa.OAEPOptions { return &rsa.OAEPOptions{Hash: crypto.SHA1} }

// decrypts lets a key decrypt, and refuse what it should.
func decrypts(t T, k keystore.Key) {
	t.Helper()
	d := k.(crypto.Decrypter)
	plain := random(100)
	ciphertext, err := oaeptrial.Encrypt(publicOf(t, k), plain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Decrypt(nil, ciphertext, oaep()); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("decrypt: %v, equal %t", err, bytes.Equal(got, plain))
	}
	forged := bytes.Clone(ciphertext)
	forged[77] ^= 1
	for what, data := range map[string][]byte{"a changed byte": forged, "nothing": nil, "a cut-off one": ciphertext[:255], "a longer one": append(bytes.Clone(ciphertext), 0)} {
		_, err := d.Decrypt(nil, data, oaep())
		is(t, "decrypt "+what, err, keystore.ErrBadData)
	}
	for what, opts := range map[string]crypto.DecrypterOpts{
		"nothing": nil, "SHA-256": &rsa.OAEPOptions{Hash: crypto.SHA256}, "a label": &rsa.OAEPOptions{Hash: crypto.SHA1, Label: []byte("l")},
		"another MGF": &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA256},
	} {
		_, err := d.Decrypt(nil, ciphertext, opts)
		is(t, "decrypt with "+what, err, errors.ErrUnsupported)
	}
}

func (s revealing) testDecrypt(t T) {
	decrypts(t, s.pair(t, keystore.RSADecrypt2048))
	t.Run("not", func(t T) {
		// A key that unwraps has no way to decrypt: testInterfaces asks that.
		_, err := s.store.Seal(s.pair(t, keystore.RSADecrypt2048), nil)
		is(t, "seal a private key", err, errors.ErrUnsupported)
	})
}
