package keywrap_test

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/keywrap"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC has the examples of RFC 3394 sections 4.1 and 4.6.
func TestRFC(t *testing.T) {
	for _, v := range []struct{ key, data, want string }{
		{"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
			"28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
	} {
		block, err := aes.NewCipher(unhex(t, v.key))
		if err != nil {
			t.Fatal(err)
		}
		encrypt := func(dst, src []byte) error { block.Encrypt(dst, src); return nil }
		decrypt := func(dst, src []byte) error { block.Decrypt(dst, src); return nil }
		wrapped, err := keywrap.Wrap(unhex(t, v.data), encrypt)
		if err != nil || hex.EncodeToString(wrapped) != v.want {
			t.Errorf("wrap: %x, %v", wrapped, err)
		}
		if data, ok, err := keywrap.Unwrap(wrapped, decrypt); !ok || err != nil || hex.EncodeToString(data) != v.data {
			t.Errorf("unwrap: %x, %t, %v", data, ok, err)
		}
		for i := range wrapped {
			forged := bytes.Clone(wrapped)
			forged[i] ^= 1
			if data, ok, err := keywrap.Unwrap(forged, decrypt); ok || data != nil || err != nil {
				t.Errorf("byte %d changed: %x, %t, %v", i, data, ok, err)
			}
		}
		for n := range 24 {
			if _, ok, err := keywrap.Unwrap(wrapped[:n], decrypt); ok || err != nil {
				t.Errorf("%d bytes: %t, %v", n, ok, err)
			}
		}
	}
}

// TestFails has the device fail at each step.
func TestFails(t *testing.T) {
	failed := errors.New("device")
	for at := range 12 {
		left := at
		step := func([]byte, []byte) error {
			if left--; left < 0 {
				return failed
			}
			return nil
		}
		if out, err := keywrap.Wrap(make([]byte, 16), step); !errors.Is(err, failed) || out != nil {
			t.Errorf("wrap, step %d: %x, %v", at, out, err)
		}
		left = at
		if out, ok, err := keywrap.Unwrap(make([]byte, 24), step); !errors.Is(err, failed) || ok || out != nil {
			t.Errorf("unwrap, step %d: %x, %t, %v", at, out, ok, err)
		}
	}
}
