package wire

import (
	"encoding/hex"
	"errors"
	"testing"
)

func TestBase64Vectors(t *testing.T) {
	for _, v := range readBase64Vectors(t).Decode {
		got, err := DecodeBase64(v.Input)
		if v.Hex == nil {
			if !errors.Is(err, ErrType) {
				t.Errorf("%q: got %x, %v, want ErrType", v.Input, got, err)
			}
		} else if err != nil || got == nil || hex.EncodeToString(got) != *v.Hex {
			t.Errorf("%q: got %x, %v, want %s", v.Input, got, err, *v.Hex)
		}
	}
}

// The alphabet for URLs is for JOSE values, which are not binary fields.
func TestBase64URLRefused(t *testing.T) {
	for _, in := range []string{"-_-_", "__8=", "AA", "AAE"} {
		if got, err := DecodeBase64([]byte(in)); !errors.Is(err, ErrType) {
			t.Errorf("%q: got %x, %v", in, got, err)
		}
	}
}

func TestBase64Blanks(t *testing.T) {
	for _, in := range []string{"AQID", " AQID", "AQ\tID", "A Q\r\nI D\n", "AQID\t"} {
		if got, err := DecodeBase64(in); err != nil || EncodeBase64(got) != "AQID" {
			t.Errorf("%q: got %x, %v", in, got, err)
		}
	}
	for _, in := range []string{"AQ\vID", "AQ\fID", "AQ\u2003ID", "AQ\x00ID"} {
		if _, err := DecodeBase64(in); err == nil {
			t.Errorf("%q: accepted", in)
		}
	}
}
