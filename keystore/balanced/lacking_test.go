//go:build cgo && !nopkcs11

package balanced_test

import (
	"crypto"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
)

// TestOneTokenLacks has tokens of which one does not have mechanisms that the other one has:
// what needs them is done on the other one, and both stay in use.
func TestOneTokenLacks(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	uses := func() error {
		_, errSign := w.signer.Sign(nil, make([]byte, 32), crypto.SHA256)
		tag, err := w.sealed.Sum(nil)
		if err == nil && string(tag) != string(w.tags[1]) {
			t.Error("another tag")
		}
		return errors.Join(errSign, err)
	}
	lacks := hsmtest.Fault{Mechanism: []uint{pkcs11.CKM_SHA256_HMAC, pkcs11.CKM_ECDSA}, Unknown: true}
	for _, m := range w.modules {
		m.Inject(lacks)
		for range 8 {
			if err := uses(); err != nil {
				t.Error(err)
			}
		}
		m.Clear()
	}
	for _, m := range w.modules {
		m.Inject(lacks)
	}
	if err := uses(); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CKR_MECHANISM_INVALID") {
		t.Errorf("neither has it: %v", err)
	}
	for _, m := range w.modules {
		m.Clear()
	}
	w.works(t)
	if text := w.log.String(); strings.Contains(text, "lost") {
		t.Error(text)
	}
}
