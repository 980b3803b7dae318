package admin

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// TestSparing has a state authenticated without the newest version, which is to be destroyed: by the
// next newest one, before and after that, and with a version that another process makes meanwhile.
func TestSparing(t *testing.T) {
	const label = "msl-issuer-mac"
	cheap := soft.Config{Cost: soft.Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}
	path := filepath.Join(t.TempDir(), "keys")
	other, err := cheap.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	add := func() {
		t.Helper()
		if _, err := other.Create(label, keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		add()
	}
	own, err := cheap.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	key, err := state.KeyOf(sparing{own, label, 3}, label)
	if err != nil {
		t.Fatal(err)
	}
	tagged := func(want uint32) {
		t.Helper()
		if tag, err := key.Tag([]byte("root")); err != nil || binary.BigEndian.Uint32(tag) != want {
			t.Errorf("tag %x, %v, want version %d", tag, err, want)
		}
	}
	tagged(2)
	if err := own.Destroy(label, 3); err != nil {
		t.Fatal(err)
	}
	tagged(2)
	if err := other.Refresh(); err != nil {
		t.Fatal(err)
	}
	add()
	theirs, err := state.KeyOf(other, label)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := theirs.Tag([]byte("root"))
	if err != nil {
		t.Fatal(err)
	}
	if fits, err := key.Check([]byte("root"), tag); err != nil || !fits {
		t.Errorf("the tag of another process: %v, %v", fits, err)
	}
}
