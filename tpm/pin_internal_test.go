package tpm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestCreateParams checks that no buffer grows: an old copy could not be wiped.
func TestCreateParams(t *testing.T) {
	for _, c := range []struct{ public, auth, data string }{
		{"public", "", ""}, {"public", "1234", ""}, {"public", "1234", "a key"}, {"", "", "a key"},
	} {
		p := createParams([]byte(c.public), []byte(c.auth), []byte(c.data))
		want := append16(nil, append16(append16(nil, []byte(c.auth)), []byte(c.data)))
		want = append(append16(want, []byte(c.public)), 0, 0, 0, 0, 0, 0)
		if !bytes.Equal(p, want) || cap(p) != len(p) {
			t.Errorf("%+v: %x of capacity %d, want %x", c, p, cap(p), want)
		}
	}
}

// TestAuthKey checks that a copy is reported, and that there is none after the
// end of a session.
func TestAuthKey(t *testing.T) {
	pin, err := checkPIN([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	key := binary.BigEndian.AppendUint32(nil, 0x01020304)
	s := &session{key: pin}
	if got, copied := s.authKey(command{}); string(got) != "1234" || copied != nil {
		t.Errorf("without a PIN: %q, copy %q", got, copied)
	}
	with := command{handles: []entity{{auth: key}}}
	if got, copied := s.authKey(with); !bytes.Equal(got, append([]byte("1234"), key...)) || &got[0] != &copied[0] {
		t.Errorf("with one: %q, copy %q", got, copied)
	}
	s.end()
	if got, _ := s.authKey(command{}); len(got) != 0 {
		t.Errorf("after the end: %q", got)
	}
}

// TestPINNotPrinted tries the verbs of package fmt, and JSON, as a log does.
func TestPINNotPrinted(t *testing.T) {
	pin := []byte("1234")
	for _, v := range []any{Config{URI: "tpm:", PIN: pin}, &Config{PIN: pin}, StoreConfig{PIN: pin}, &StoreConfig{PIN: pin}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			if text := fmt.Sprintf(verb, v); !strings.HasPrefix(text, "keys of ") || strings.Contains(text, "1234") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
		if text, err := json.Marshal(v); err != nil || bytes.Contains(text, []byte("PIN")) {
			t.Errorf("%s, %v", text, err)
		}
	}
}
