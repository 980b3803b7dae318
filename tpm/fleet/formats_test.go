package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestFormats reads what was written by earlier versions, and refuses what was not.
func TestFormats(t *testing.T) {
	proof, err := ParseStorageProof([]byte(`{"public": "AQ==", "attest": "Ag==", "signature": "Aw==", "nonce": "0a0b"}`))
	if err != nil || !reflect.DeepEqual(proof, &StorageProof{[]byte{1}, []byte{2}, []byte{3}, []byte{10, 11}}) {
		t.Errorf("%+v, %v", proof, err)
	}
	const key = `{"public": "AQ==", "duplicate": "Ag==", "seed": "Aw=="}`
	set, err := ParseWrappedPSK([]byte(`{"identity": "box-psk", "encryption": ` + key + `, "mac": ` + key + `, "revealing": ` + key + `}`))
	want := WrappedKey{[]byte{1}, []byte{2}, []byte{3}}
	if err != nil || !reflect.DeepEqual(set, &WrappedPSK{"box-psk", want, want, want}) {
		t.Errorf("%+v, %v", set, err)
	}
	for _, text := range []string{``, `{`, `[]`, `"x"`, `{"keys": ""}`, `{"public": 1}`, `{"identity": 1}`, `{"nonce": "0"}`, `{"mac": {"raw": ""}}`} {
		proof, errProof := ParseStorageProof([]byte(text))
		set, errSet := ParseWrappedPSK([]byte(text))
		if errProof == nil || errSet == nil || proof != nil || set != nil {
			t.Errorf("%s: %v, %v", text, errProof, errSet)
		}
	}
}

// TestNonce has those of all lengths.
func TestNonce(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 15: false, 16: true, 32: true, 33: false} {
		if err := CheckNonce(make([]byte, n)); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := (&Device{}).ProveStorageKey(nil); err == nil {
		t.Error("a storage key is proven without a nonce")
	}
}

// TestPSKIsNotPrinted tries the verbs of package fmt.
func TestPSKIsNotPrinted(t *testing.T) {
	k := PSK{Encryption: []byte("secret"), MAC: []byte("secret"), Wrapping: []byte("secret")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{k, &k} {
			if text := fmt.Sprintf(verb, v); text != "pre-shared keys" {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if text, err := json.Marshal(k); string(text) != "{}" || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

func FuzzParseStorageProof(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"public": "AQ==", "attest": "Ag==", "signature": "Aw==", "nonce": "0a0b"}`))
	f.Fuzz(func(t *testing.T, text []byte) { comesBack(t, text, ParseStorageProof) })
}

func FuzzParseWrappedPSK(f *testing.F) {
	f.Add([]byte(`{"identity": "box-psk", "encryption": {"public": "AQ==", "duplicate": "Ag==", "seed": "Aw=="}, "mac": {}}`))
	f.Fuzz(func(t *testing.T, text []byte) { comesBack(t, text, ParseWrappedPSK) })
}

// comesBack checks that writing and reading again gives the same.
func comesBack[T any](t *testing.T, text []byte, parse func([]byte) (*T, error)) {
	t.Helper()
	v, err := parse(text)
	if err != nil {
		if v != nil || strings.ContainsRune(err.Error(), '\n') {
			t.Fatalf("%+v, %v", v, err)
		}
		return
	}
	written, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if v, err = parse(written); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(v); err != nil || !bytes.Equal(again, written) {
		t.Fatalf("%s was %s, %v", again, written, err)
	}
}
