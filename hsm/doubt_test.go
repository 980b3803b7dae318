package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestWrongTag has a device compute wrong tags without an error, by chance or always the same:
// what a peer sent is not called forged for it.
func TestWrongTag(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	provisioned, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	generated, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.Seal(sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("data")
	for name, k := range map[string]keystore.Key{"provisioned": provisioned.Key, "generated": generated, "sealed": sealed} {
		mac := k.(keystore.MAC)
		tag, err := mac.Sum(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keystore.Verify(mac, nil, data, make([]byte, 32)); !errors.Is(err, keystore.ErrBadTag) {
			t.Errorf("%s key, another tag: %v", name, err)
		}
		m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true, Times: 1})
		if got, err := keystore.Verify(mac, []byte("x"), data, tag); err != nil || !bytes.Equal(got[1:], tag) {
			t.Errorf("%s key, wrong once: %x, %v", name, got, err)
		}
		for times := range 4 {
			hsm.DoubtAnew(s)
			m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true, Times: 2 + times})
			if _, err := keystore.Verify(mac, nil, data, tag); errors.Is(err, keystore.ErrBadTag) {
				t.Errorf("%s key, wrong %d times: %v", name, 2+times, err)
			}
		}
		hsm.DoubtAnew(s)
		m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true})
		if _, err := keystore.Verify(mac, nil, data, tag); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrBadTag) {
			t.Errorf("%s key, always wrong: %v", name, err)
		}
		m.Clear()
		if _, err := keystore.Verify(mac, nil, data, tag); err != nil {
			t.Errorf("%s key, afterwards: %v", name, err)
		}
	}
	hsm.DoubtAnew(s)
	m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true})
	if _, err := s.Unseal(keystore.HMACSHA256, blob, nil); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrForeign) {
		t.Errorf("unseal: %v", err)
	}
	m.Clear()
	if k, err := s.Unseal(keystore.HMACSHA256, blob, nil); err != nil {
		t.Errorf("unseal afterwards: %v", err)
	} else {
		k.Close()
	}
}

// TestOtherKey has the handle of a sealed key be that of another one, as where a module gives
// handles twice: the key is opened anew.
func TestOtherKey(t *testing.T) {
	s, _ := newFaulty(t, hsm.Config{})
	var keys [2]keystore.MAC
	for i := range keys {
		k, err := s.Generate(keystore.HMACSHA256)
		if err == nil {
			_, err = s.Seal(k, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.(keystore.MAC)
	}
	tag, err := keys[0].Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	hsm.SwapHandles(keys[0], keys[1])
	if wrong, err := keys[0].Sum(nil); err != nil || bytes.Equal(wrong, tag) {
		t.Fatalf("the handles are not swapped: %v", err)
	}
	if _, err := keystore.Verify(keys[0], nil, nil, tag); err != nil {
		t.Error(err)
	}
}

// TestDoubtCosts has many tags that do not match: the device is not asked for much more than
// each tag twice.
func TestDoubtCosts(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	calls := func() (n uint64) {
		for _, c := range m.Counters().Calls {
			n += c
		}
		return n
	}
	const times = 500
	before := calls()
	for range times {
		if _, err := keystore.Verify(k.(keystore.MAC), nil, nil, make([]byte, 32)); !errors.Is(err, keystore.ErrBadTag) {
			t.Fatal(err)
		}
	}
	if n := calls() - before; n > 5*times {
		t.Errorf("%d calls for %d tags, where two computations are 4 each", n, times)
	}
}

// TestWrongPlaintext has a device decrypt wrongly, so that the padding is bad.
func TestWrongPlaintext(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	cipher, iv := k.(keystore.Cipher), make([]byte, 16)
	sealed, err := cipher.Encrypt(iv, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_Decrypt", Garble: true, Times: 1})
	if got, err := cipher.Decrypt(iv, sealed); err != nil || len(got) != 0 {
		t.Errorf("wrong once: %x, %v", got, err)
	}
	for times := range 4 {
		hsm.DoubtAnew(s)
		m.Inject(hsmtest.Fault{Function: "C_Decrypt", Garble: true, Times: 2 + times})
		if _, err := cipher.Decrypt(iv, sealed); errors.Is(err, keystore.ErrBadData) {
			t.Errorf("wrong %d times: %v", 2+times, err)
		}
	}
	hsm.DoubtAnew(s)
	m.Inject(hsmtest.Fault{Function: "C_Decrypt", Garble: true})
	if _, err := cipher.Decrypt(iv, sealed); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrBadData) {
		t.Errorf("always wrong: %v", err)
	}
	m.Clear()
	if _, err := cipher.Decrypt(iv, make([]byte, 16)); !errors.Is(err, keystore.ErrBadData) {
		t.Errorf("bad data: %v", err)
	}
}

// TestWrongSignature has a device sign wrongly once, and always.
func TestWrongSignature(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	v, err := s.Create("sign", keystore.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	for _, times := range []int{1, 0} {
		m.Inject(hsmtest.Fault{Function: "C_Sign", Mechanism: []uint{pkcs11.CKM_ECDSA}, Garble: true, Times: times})
		_, err := v.Key.(crypto.Signer).Sign(nil, digest[:], crypto.SHA256)
		if times == 1 && err != nil || times == 0 && !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("wrong %d times: %v", times, err)
		}
	}
}
