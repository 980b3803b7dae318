package keys

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestChallengeKey opens a key store twice, as a server does that is restarted, or another
// one: both make and accept the same challenges.
func TestChallengeKey(t *testing.T) {
	c := config.Default()
	c.Server.Enrollment.Unknown = "hold"
	path := filepath.Join(t.TempDir(), "keys")
	first, err := soft.Config{SealPrefix: c.Keystore.Prefix}.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	if settings, err := authoritySettings(c, first); err != nil || settings.MAC != nil {
		t.Errorf("without the key: %v, %v", settings.MAC != nil, err)
	}
	if _, err := first.Create(keystore.RoleIssuerMAC.Label(c.Keystore.Prefix), keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	var tags [][]byte
	for range 2 {
		store, err := soft.Open(path, []byte("passphrase"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		settings, err := authoritySettings(c, store)
		if err != nil {
			t.Fatal(err)
		}
		macs, err := settings.MAC()
		if err != nil {
			t.Fatal(err)
		}
		tag, err := macs[0].Sum([]byte("challenge"))
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(tags[0], tags[1]) {
		t.Error("the challenges of one are not those of the other")
	}
}
