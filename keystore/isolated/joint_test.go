//go:build cgo && !nopkcs11

package isolated_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestJoint protects and opens several parts in one call, also in a child that took the place
// of another one.
func TestJoint(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	mac, cipher := w.sealed, sealedCipher(t, w)
	if !cipher.Joins(mac) {
		t.Fatal("the keys do not join")
	}
	syscall.Kill(w.PID(), syscall.SIGKILL)
	iv := bytes.Repeat([]byte{7}, 16)
	sealed := []keystore.Sealing{
		{IV: iv, Plaintext: []byte("one"), Before: []byte(`{"a":"`), After: []byte(`"}`), Data: []byte("kept")},
		{IV: iv, Plaintext: bytes.Repeat([]byte("two"), 40000)}, // more than fits into a pipe
	}
	if err := cipher.SealAll(mac, sealed); err != nil {
		t.Fatal(err)
	}
	if cipher.(keystore.Timed).Latency() <= 0 {
		t.Error("a call with both keys does not tell how long the device takes")
	}
	sealed[0].Data = bytes.TrimPrefix(sealed[0].Data, []byte("kept"))
	var all []keystore.Opening
	for _, s := range sealed {
		ciphertext, err := cipher.Encrypt(iv, s.Plaintext)
		want := slices.Concat(s.Before, []byte(base64.StdEncoding.EncodeToString(ciphertext)), s.After)
		if err != nil || !bytes.Equal(s.Data, want) {
			t.Errorf("%.10q becomes %.20s, want %.20s: %v", s.Plaintext, s.Data, want, err)
		}
		all = append(all, keystore.Opening{Data: s.Data, Tag: s.Tag, IV: iv, Ciphertext: ciphertext, Plaintext: []byte("kept")})
	}
	if n, err := cipher.OpenAll(mac, all); n != 2 || err != nil {
		t.Fatalf("%d of 2 are opened: %v", n, err)
	}
	for i := range all {
		if want := "kept" + string(sealed[i].Plaintext); string(all[i].Plaintext) != want {
			t.Errorf("%.20q, want %.20q", all[i].Plaintext, want)
		}
	}
}

// TestJointRefuses opens up to what does not open.
func TestJointRefuses(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	mac, cipher := w.sealed, sealedCipher(t, w)
	iv := make([]byte, 16)
	part := func(plaintext string) keystore.Opening {
		s := []keystore.Sealing{{IV: iv, Plaintext: []byte(plaintext)}}
		if err := cipher.SealAll(mac, s); err != nil {
			t.Fatal(err)
		}
		ciphertext, err := base64.StdEncoding.AppendDecode(nil, s[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		return keystore.Opening{Data: s[0].Data, Tag: s[0].Tag, IV: iv, Ciphertext: ciphertext}
	}
	forged, other, broken := part("forged"), part("other tag"), part("broken")
	forged.Data = append([]byte("x"), forged.Data...)
	other.Tag = other.Tag[:31]
	broken.Ciphertext = broken.Ciphertext[1:] // which the caller is to see to
	for name, c := range map[string]struct {
		all    []keystore.Opening
		opened int
		want   error
	}{
		"forged":         {[]keystore.Opening{forged, part("good")}, 0, keystore.ErrBadTag},
		"cut tag":        {[]keystore.Opening{part("good"), other}, 1, keystore.ErrBadTag},
		"broken":         {[]keystore.Opening{part("good"), broken, part("good")}, 1, keystore.ErrBadData},
		"nothing":        {nil, 0, nil},
		"one after bad":  {[]keystore.Opening{part("good"), part("good"), forged}, 2, keystore.ErrBadTag},
		"another's keys": {[]keystore.Opening{part("good")}, 0, keystore.ErrWrongKey},
	} {
		t.Run(name, func(t *testing.T) {
			with := mac
			if c.want == keystore.ErrWrongKey {
				with = softMAC(t)
			}
			opened, err := cipher.OpenAll(with, c.all)
			if opened != c.opened || !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("%d are opened: %v, want %d and %v", opened, err, c.opened, c.want)
			}
			for i := range c.all[opened:] {
				if c.all[opened+i].Plaintext != nil {
					t.Errorf("part %d was decrypted", opened+i)
				}
			}
		})
	}
	if cipher.Joins(softMAC(t)) {
		t.Error("a key joins with one of another store")
	}
}

func sealedCipher(t *testing.T, w *world) keystore.Joint {
	t.Helper()
	k, err := w.Generate(keystore.AES128CBC)
	if err == nil {
		_, err = w.Seal(k, []byte("context"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k.(keystore.Joint)
}

func softMAC(t *testing.T) keystore.MAC {
	s := soft.New()
	t.Cleanup(func() { s.Close() })
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	return k.(keystore.MAC)
}
