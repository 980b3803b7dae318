package state

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestKeyDestroyed has another process destroy versions of the key of a state: the one that is
// left makes tags, and no error says that there is no such record, by which an entity would
// count as unknown, or as one without restrictions.
func TestKeyDestroyed(t *testing.T) {
	const label = "msl-issuer-mac"
	cheap := soft.Config{Cost: soft.Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}
	path := filepath.Join(t.TempDir(), "keys")
	one, err := cheap.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	for range 2 {
		if _, err := one.Create(label, keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	two, err := cheap.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	k, err := KeyOf(two, label)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("data")
	old, err := k.Tag(data)
	if err := errors.Join(err, one.Destroy(label, 2), two.Refresh()); err != nil {
		t.Fatal(err)
	}
	if fits, err := k.Check(data, old); fits || err != nil {
		t.Errorf("a tag of the lost version: %t, %v", fits, err)
	}
	tag, err := k.Tag(data)
	if err != nil {
		t.Fatal(err)
	}
	if fits, err := k.Check(data, tag); !fits || err != nil || tag[3] != 1 {
		t.Errorf("a tag of version %d: %t, %v", tag[3], fits, err)
	}
	if err := errors.Join(one.Destroy(label, 1), two.Refresh()); err != nil {
		t.Fatal(err)
	}
	_, failed := k.Tag(data)
	_, refused := k.Check(data, tag)
	for _, err := range []error{failed, refused} {
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("with no version left: %v", err)
		}
	}
}
