package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
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
		if got, err := DecodeBase64(in); err != nil || encodeBase64(got) != "AQID" {
			t.Errorf("%q: got %x, %v", in, got, err)
		}
	}
	for _, in := range []string{"AQ\vID", "AQ\fID", "AQ\u2003ID", "AQ\x00ID"} {
		if _, err := DecodeBase64(in); err == nil {
			t.Errorf("%q: accepted", in)
		}
	}
}

// The tables decode and encode what the standard library does, and in place, too.
func FuzzBase64Tables(f *testing.F) {
	for _, seed := range []string{"", "AQID", "AQIDBAUGBwgJCgsMDQ4PEA==", "AQIDBAUG BwgJCgsMDQ4PEA==", "AQIDBAUGBw=gJCgsMDQ4PEA==", "AQIDBAUGB\x80gJCgsM"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		want := make([]byte, base64.StdEncoding.DecodedLen(len(in)))
		n, wrong := base64.StdEncoding.Decode(want, slices.DeleteFunc(slices.Clone(in), isSpace))
		apart, place := make([]byte, len(want)), slices.Clone(in)
		for _, dst := range [][]byte{apart, place[:len(want)]} {
			got, err := decodeBase64(dst, place)
			if (err == nil) != (wrong == nil) || err == nil && !bytes.Equal(got, want[:n]) {
				t.Errorf("%q: got %x, %v, want %x, %v", in, got, err, want[:n], wrong)
			}
		}
		if got := encodeBase64(in); got != base64.StdEncoding.EncodeToString(in) {
			t.Errorf("%x: got %s", in, got)
		}
	})
}

func encodeBase64(b []byte) string { return string(appendBase64(nil, b)) }
