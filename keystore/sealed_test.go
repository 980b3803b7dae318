package keystore_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

func sealed() keystore.Sealed {
	return keystore.Sealed{
		Algorithm: keystore.AES128CBC, KEKVersion: 0x01020304,
		Wrapped: bytes.Repeat([]byte{0xaa}, 24), Tag: bytes.Repeat([]byte{0xbb}, 32),
	}
}

// Sealed keys are in state files: the form may never change.
func TestSealed(t *testing.T) {
	want := append([]byte{1, 1, 1, 2, 3, 4}, append(bytes.Repeat([]byte{0xaa}, 24), bytes.Repeat([]byte{0xbb}, 32)...)...)
	blob := sealed().Bytes()
	if !bytes.Equal(blob, want) {
		t.Errorf("sealed key %x, want %x", blob, want)
	}
	back, err := keystore.ParseSealed(blob)
	if err != nil || !bytes.Equal(back.Bytes(), want) {
		t.Errorf("parsed as %+v, %v", back, err)
	}
	covered := append([]byte("msl-hsm sealed key v1\x00"), want[:6]...)
	covered = append(append(append(covered, 0, 0, 0, 24), want[6:30]...), "context"...)
	if got := sealed().Authenticated([]byte("context")); !bytes.Equal(got, covered) {
		t.Errorf("the tag covers %x, want %x", got, covered)
	}
}

// TestSealedForm keeps a form apart from the usual one, also by the tag.
func TestSealedForm(t *testing.T) {
	s := sealed()
	s.Form = 3
	want := append([]byte{2, 1, 1, 2, 3, 4, 3}, append(bytes.Repeat([]byte{0xaa}, 24), bytes.Repeat([]byte{0xbb}, 32)...)...)
	if !bytes.Equal(s.Bytes(), want) {
		t.Errorf("sealed key %x, want %x", s.Bytes(), want)
	}
	back, err := keystore.ParseSealed(want)
	if err != nil || back.Form != 3 || !bytes.Equal(back.Bytes(), want) {
		t.Errorf("parsed as %+v, %v", back, err)
	}
	if bytes.Equal(s.Authenticated(nil), sealed().Authenticated(nil)) {
		t.Error("the tag does not cover the form")
	}
}

func TestParseSealedRefuses(t *testing.T) {
	with := func(i int, b byte) []byte {
		blob := sealed().Bytes()
		blob[i] = b
		return blob
	}
	for name, blob := range map[string][]byte{
		"nothing":           nil,
		"too short":         sealed().Bytes()[:53],
		"version 0":         with(0, 0),
		"version 3":         with(0, 3),
		"form 0":            append([]byte{2, 1, 1, 2, 3, 4, 0}, make([]byte, 56)...),
		"form, too short":   append([]byte{2, 1, 1, 2, 3, 4}, make([]byte, 47)...),
		"no algorithm":      with(1, 0),
		"unknown algorithm": with(1, 200),
		"a key pair":        with(1, uint8(keystore.ECDSAP256)),
		"a sealing key":     with(1, uint8(keystore.SealMAC256)),
	} {
		if s, err := keystore.ParseSealed(blob); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("%s: parsed as %+v, %v", name, s, err)
		}
	}
}

// FuzzParseSealed looks for a blob that is read as another than it is.
func FuzzParseSealed(f *testing.F) {
	f.Add(sealed().Bytes())
	formed := sealed()
	formed.Form = 1
	f.Add(formed.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, blob []byte) {
		s, err := keystore.ParseSealed(blob)
		if err != nil {
			if !errors.Is(err, keystore.ErrForeign) {
				t.Errorf("%x: %v", blob, err)
			}
			return
		}
		if !bytes.Equal(s.Bytes(), blob) {
			t.Errorf("%x is read as %x", blob, s.Bytes())
		}
	})
}
