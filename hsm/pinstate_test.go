package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"
)

// TestPINState reports the worst state, of the role that was asked about.
func TestPINState(t *testing.T) {
	for _, c := range []struct {
		flags    uint
		user, so PINState
	}{
		{pkcs11.CKF_USER_PIN_INITIALIZED, PINFine, PINFine},
		{pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, PINFinalTry, PINFine},
		{pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_SO_PIN_LOCKED, PINCountLow, PINLocked},
		{pkcs11.CKF_USER_PIN_LOCKED | pkcs11.CKF_USER_PIN_TO_BE_CHANGED, PINLocked, PINFine},
		{pkcs11.CKF_USER_PIN_TO_BE_CHANGED | pkcs11.CKF_SO_PIN_COUNT_LOW, PINToBeChanged, PINCountLow},
		{pkcs11.CKF_SO_PIN_FINAL_TRY | pkcs11.CKF_SO_PIN_TO_BE_CHANGED, PINFine, PINFinalTry},
	} {
		p := PINs{flags: c.flags}
		if p.State(User) != c.user || p.State(SecurityOfficer) != c.so {
			t.Errorf("flags %#x: user %d, security officer %d; want %d, %d", c.flags, p.State(User), p.State(SecurityOfficer), c.user, c.so)
		}
	}
}

// TestPINLengths checks PINs by the limits that a token states, unless it states none.
func TestPINLengths(t *testing.T) {
	const unknown = ^uint(0)
	for _, c := range []struct {
		least, most uint
		fits        bool
	}{
		{4, 8, true}, {7, 8, false}, {1, 5, false}, {6, 6, true}, {0, 255, true}, {1, unknown, true},
		{0, 0, true}, {unknown, unknown, true}, {8, 4, true}, {unknown, 0, true},
	} {
		if err := checkPINs(tokenInfo{MinPINLen: c.least, MaxPINLen: c.most}, []byte("123456")); (err == nil) != c.fits {
			t.Errorf("6 bytes, %d to %d: %v", c.least, c.most, err)
		}
	}
}
