package entityauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// TestPSKFile gives a key set to a device by a file, and to a server sealed: they agree.
func TestPSKFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "psk")
	made := entityauth.NewPSKFile("camera", false)
	if err := made.Write(path); err != nil {
		t.Fatal(err)
	}
	if err := made.Write(path); err == nil {
		t.Error("a file was overwritten")
	}
	read, err := entityauth.ReadPSKFile(path, false)
	if err != nil || read.Identity != "camera" || !bytes.Equal(read.Wrapping, made.Wrapping) || read.Derived() {
		t.Fatalf("%v, %v", read, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(verb, read); text != `pre-shared keys of "camera"` {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	server, device := soft.New(), soft.New()
	defer server.Close()
	defer device.Close()
	sealed, err := read.Seal(server)
	if err != nil {
		t.Fatal(err)
	}
	set, err := read.KeySet(device, true)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Release()
	read.Wipe()
	peers := &entityauth.PSK{Store: server, Directory: msl.StaticDirectory{"camera": {Identity: "camera", Scheme: "PSK", PSK: sealed}}}
	defer peers.Close()
	own, err := (&entityauth.PSKEntity{Identity: "camera", Keys: set}).Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := own.Protector.Encrypt([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	sender, release, err := peers.Open(t.Context(), own.AuthData)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if plain, err := sender.Opener.Decrypt(data); err != nil || string(plain) != "hello" {
		t.Errorf("%q, %v", plain, err)
	}
}

// TestPSKFileRefused has files that are none, and errors that quote nothing of them.
func TestPSKFileRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":   "hush",
		"unknown":   `{"identity":"a","encryption":"hush","extra":1}`,
		"no Base64": `{"identity":"a","encryption":"hush!","mac":"hush!"}`,
		"too short": `{"identity":"a","encryption":"aHVzaA==","mac":"aHVzaA=="}`,
		"too long":  strings.Repeat(" ", 64<<10) + "hush",
	} {
		path := filepath.Join(t.TempDir(), "psk")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := entityauth.ReadPSKFile(path, true); k != nil || err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	path := filepath.Join(t.TempDir(), "psk")
	if err := entityauth.NewPSKFile("a", true).Write(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if k, err := entityauth.ReadPSKFile(path, true); k != nil || err == nil {
		t.Error("a file that others can read was taken")
	}
}

// TestPSKFileWrapping derives a wrapping key only if it is requested and the file has none.
func TestPSKFileWrapping(t *testing.T) {
	own := entityauth.NewPSKFile("a", false)
	without := *own
	without.Wrapping = nil
	derived := entityauth.DeriveWrappingKey(own.Encryption, own.MAC)
	for _, c := range []struct {
		name   string
		file   *entityauth.PSKFile
		derive bool
		want   []byte
	}{
		{"its own", own, false, own.Wrapping}, {"its own, derive", own, true, own.Wrapping},
		{"none", &without, false, nil}, {"none, derive", &without, true, derived},
	} {
		path := filepath.Join(t.TempDir(), "psk")
		if err := c.file.Write(path); err != nil {
			t.Fatal(err)
		}
		read, err := entityauth.ReadPSKFile(path, c.derive)
		if err != nil || !bytes.Equal(read.Wrapping, c.want) {
			t.Errorf("%s: %v, %v", c.name, read, err)
		}
	}
}

// A damaging store seals what does not open, or another key.
type damaging struct {
	*soft.Store
	another bool
}

func (d damaging) Seal(k keystore.Key, context []byte) ([]byte, error) {
	if d.another {
		other, err := d.Generate(k.Algorithm())
		if err != nil {
			return nil, err
		}
		k = other
	}
	blob, err := d.Store.Seal(k, context)
	if err == nil && !d.another {
		blob[len(blob)-1]++
	}
	return blob, err
}

// TestSealDamaged has a key store seal pre-shared keys wrongly: nothing is given to be registered,
// and neither the keys nor the entity are blamed.
func TestSealDamaged(t *testing.T) {
	for _, another := range []bool{false, true} {
		store := soft.New()
		_, err := entityauth.NewPSKFile("camera", false).Seal(damaging{store, another})
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrForeign) {
			t.Errorf("another %t: %v", another, err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}
