package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// TestPSKFile checks that the output is that of package json, and can be read.
func TestPSKFile(t *testing.T) {
	for _, k := range []*entityauth.PSKFile{
		{Identity: `a "camera" of <ours>`, Encryption: make([]byte, 16), MAC: make([]byte, 32), Wrapping: []byte("sixteen bytes of")},
		{Identity: "group", Encryption: []byte("sixteen bytes of"), MAC: make([]byte, 32)},
	} {
		path := filepath.Join(t.TempDir(), "psk")
		if err := k.Write(path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		want, _ := json.MarshalIndent(k, "", "  ")
		if err != nil || string(got) != string(want)+"\n" {
			t.Errorf("wrote %s, %v; want %s", got, err, want)
		}
		back, err := keys.ReadKeySet(path, false)
		if err != nil || !reflect.DeepEqual(back, k) {
			t.Errorf("read %+v, %v", back, err)
		}
	}
}

func TestPSKFileRefused(t *testing.T) {
	const good = `"identity":"a","encryption":"AAAAAAAAAAAAAAAAAAAAAA==","mac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`
	for text, ok := range map[string]bool{
		"{" + good + "}":                   true,
		"{" + good + `,"more":1}`:          false,
		"{" + good + "} {}":                false,
		"[]":                               false,
		"null":                             false,
		"":                                 false,
		"{" + good + `,"wrapping":"AAAA"}`: false,
	} {
		path := filepath.Join(t.TempDir(), "psk")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := keys.ReadPSK(path)
		if (err == nil) != ok || err == nil && len(k.Wrapping) != 16 {
			t.Errorf("%s: %v", text, err)
		}
	}
}
