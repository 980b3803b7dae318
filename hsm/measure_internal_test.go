package hsm

import (
	"bytes"
	"testing"

	"github.com/miekg/pkcs11"
)

// TestModulusWithZero measures an RSA key whose modulus has a zero in front, as a signed number.
func TestModulusWithZero(t *testing.T) {
	modulus := bytes.Repeat([]byte{0x80}, 256)
	for zeros := range 3 {
		e := evidence{class: pkcs11.CKO_PRIVATE_KEY, keyType: pkcs11.CKK_RSA, told: map[uint][]byte{pkcs11.CKA_MODULUS: append(make([]byte, zeros), modulus...)}}
		if e.measure(); e.size != 2048 {
			t.Errorf("%d zeros: %d bits", zeros, e.size)
		}
	}
}
