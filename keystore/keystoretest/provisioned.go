package keystoretest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// provisioning are the tests of provisioned keys.
type provisioning struct{ *suite }

// testProvisioned makes keys as a set-up command does, and uses them.
func (s provisioning) testProvisioned(t T) {
	_, err := s.store.Lookup(label("missing"))
	is(t, "look up a missing key", err, keystore.ErrNotFound)
	admin, ok := s.store.(keystore.Admin)
	if !ok {
		t.Skip("the store is not an Admin")
	}
	t.Run("ring", func(t T) { s.testRing(t, admin) })
	t.Run("destroy", func(t T) { s.testDestroy(t, admin) })
	each(t, keystore.Algorithms(), func(t T, a keystore.Algorithm) {
		switch {
		case a.Sealing():
			t.Skip("open made it")
		case a.Size() > 2048:
			t.Skip("too slow to generate")
		}
		s.testCreated(t, admin, a)
	})
	t.Run("unwrapped", func(t T) { s.testUnwrapped(t, admin) })
}

// Prefix is what the labels of all provisioned keys begin with that the suite makes.
const Prefix = "keystoretest-"

// label makes a name that no run before has left on a device.
func label(what string) string { return Prefix + what + "-" + hex.EncodeToString(random(6)) }

// create makes a provisioned key that goes with the test.
func (s provisioning) create(t T, admin keystore.Admin, name string, a keystore.Algorithm) keystore.Version {
	t.Helper()
	v, err := admin.Create(name, a)
	k := s.keep(t, a, v.Key, err)
	t.Cleanup(func() {
		if err := admin.Destroy(name, v.Number); err != nil && !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("destroy %s version %d: %v", name, v.Number, err)
		}
	})
	return keystore.Version{Number: v.Number, Key: k}
}

func (s provisioning) lookup(t T, name string, want ...uint32) []keystore.Version {
	t.Helper()
	versions, err := s.store.Lookup(name)
	if err != nil {
		t.Fatalf("look up %s: %v", name, err)
	}
	var numbers []uint32
	for _, v := range versions {
		numbers = append(numbers, v.Number)
		t.Cleanup(func() { v.Key.Close() })
	}
	if !slices.Equal(numbers, want) {
		t.Fatalf("%s has versions %v, want %v", name, numbers, want)
	}
	return versions
}

func (s provisioning) testRing(t T, admin keystore.Admin) {
	name := label("ring")
	first := s.create(t, admin, name, keystore.AES128CBC)
	one := s.lookup(t, name, 1)[0].Key
	iv, plaintext := random(16), []byte("under version 1")
	ciphertext, err := one.(keystore.Cipher).Encrypt(iv, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	second := s.create(t, admin, name, keystore.AES128CBC)
	if first.Number != 1 || second.Number != 2 {
		t.Errorf("created versions %d and %d", first.Number, second.Number)
	}
	ring := s.lookup(t, name, 2, 1)
	if fingerprint(t, s.store, ring[0].Key) == fingerprint(t, s.store, ring[1].Key) {
		t.Error("two versions are equal")
	}
	back, err := ring[1].Key.(keystore.Cipher).Decrypt(iv, ciphertext)
	if err != nil || !bytes.Equal(back, plaintext) {
		t.Errorf("version 1 does not decrypt what it encrypted: %v", err)
	}
	s.isListed(t, admin, name, keystore.AES128CBC, 2, 1)
	_, err = admin.Create(name, keystore.HMACSHA256)
	is(t, "create another algorithm under the label", err, keystore.ErrExists)
}

func (s provisioning) testDestroy(t T, admin keystore.Admin) {
	name := label("destroy")
	s.create(t, admin, name, keystore.HMACSHA256)
	s.create(t, admin, name, keystore.HMACSHA256)
	s.create(t, admin, name, keystore.HMACSHA256)
	neighbour := label("neighbour")
	s.create(t, admin, neighbour, keystore.HMACSHA256)
	is(t, "destroy a missing version", admin.Destroy(name, 9), keystore.ErrNotFound)
	s.lookup(t, name, 3, 2, 1)
	if err := admin.Destroy(name, 2); err != nil {
		t.Fatal(err)
	}
	s.lookup(t, name, 3, 1)
	s.isListed(t, admin, name, keystore.HMACSHA256, 3, 1)
	is(t, "destroy a version twice", admin.Destroy(name, 2), keystore.ErrNotFound)
	if err := admin.Destroy(name, 0); err != nil {
		t.Fatal(err)
	}
	_, err := s.store.Lookup(name)
	is(t, "look up what was destroyed", err, keystore.ErrNotFound)
	is(t, "destroy a ring twice", admin.Destroy(name, 0), keystore.ErrNotFound)
	s.isListed(t, admin, name, 0)
	s.lookup(t, neighbour, 1)
}

// isListed asks for the evidence about the versions of one label.
func (s provisioning) isListed(t T, admin keystore.Admin, name string, a keystore.Algorithm, want ...uint32) {
	t.Helper()
	all, err := admin.List()
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.IsSortedFunc(all, func(x, y keystore.Info) int {
		if x.Label != y.Label {
			return bytes.Compare([]byte(x.Label), []byte(y.Label))
		}
		return int(y.Version) - int(x.Version)
	})
	if !sorted {
		t.Error("the list is not by label and falling version")
	}
	var versions []uint32
	for _, info := range all {
		if info.Label != name {
			continue
		}
		versions = append(versions, info.Version)
		checkInfo(t, a, info)
	}
	if !slices.Equal(versions, want) {
		t.Errorf("%s is listed with versions %v, want %v", name, versions, want)
	}
}

func checkInfo(t T, a keystore.Algorithm, info keystore.Info) {
	t.Helper()
	if info.Algorithm != a {
		t.Errorf("%s is listed as %v, want %v", info.Label, info.Algorithm, a)
	}
	if !info.Local {
		t.Errorf("%s was made here, and is listed as not", info.Label)
	}
	if info.Extractable {
		t.Errorf("%s is extractable", info.Label)
	}
	if len(info.Usages) == 0 {
		t.Errorf("%s is listed without usages", info.Label)
	}
	if len(info.Weaknesses) > 0 {
		t.Errorf("%s is listed with weaknesses: %q", info.Label, info.Weaknesses)
	}
}

// testCreated makes one provisioned key, uses it, and asks that it stays.
func (s provisioning) testCreated(t T, admin keystore.Admin, a keystore.Algorithm) {
	name := label(a.String())
	s.create(t, admin, name, a)
	s.isListed(t, admin, name, a, 1)
	k := s.lookup(t, name, 1)[0].Key
	if k.Algorithm() != a {
		t.Fatalf("looked up %v, got %v", a, k.Algorithm())
	}
	switch abilities(k) {
	case "signer":
		signs(t, k)
	case "unwrapper":
		if _, err := k.(keystore.Unwrapper).Unwrap(keystore.AES128CBC, random(24)); !errors.Is(err, keystore.ErrBadData) {
			t.Errorf("unwrap noise: %v", err)
		}
	case "revealer":
		if _, err := k.(keystore.Revealer).Reveal(random(24)); !errors.Is(err, keystore.ErrBadData) {
			t.Errorf("reveal noise: %v", err)
		}
	case "decrypter":
		decrypts(t, k)
	case "":
		t.Errorf("a provisioned %v key does nothing", a)
	default:
		again := s.lookup(t, name, 1)[0].Key
		if fingerprint(t, s.store, k) != fingerprint(t, s.store, again) {
			t.Error("looked up twice, two different keys")
		}
	}
	if a.Secret() {
		s.isLocked(t, "provisioned key", k)
	}
	_, err := s.store.Seal(k, nil)
	is(t, "seal a provisioned key", err, keystore.ErrLocked)
	s.closeAndFind(t, name, k)
}

func (s provisioning) closeAndFind(t T, name string, k keystore.Key) {
	t.Helper()
	for range 2 {
		if err := k.Close(); err != nil {
			t.Errorf("close a provisioned key: %v", err)
		}
	}
	usedAfterClose(t, k, s.generate(t, keystore.HMACSHA256))
	again := s.lookup(t, name, 1)[0].Key
	if abilities(again) == "cipher" || abilities(again) == "mac" {
		fingerprint(t, s.store, again)
	}
}

// testUnwrapped asks that what a provisioned key unwrapped is locked.
func (s provisioning) testUnwrapped(t T, admin keystore.Admin) {
	name := label("unwrapped")
	s.create(t, admin, name, keystore.RSAUnwrap2048)
	u := s.lookup(t, name, 1)[0].Key
	each(t, movable(), func(t T, a keystore.Algorithm) {
		there := s.softKey(t, a, random(a.Size()))
		wrapped, err := s.other.WrapFor(publicOf(t, u), there)
		if err != nil {
			t.Fatal(err)
		}
		here, err := u.(keystore.Unwrapper).Unwrap(a, wrapped)
		here = s.keep(t, a, here, err)
		s.isLocked(t, "key that a provisioned one unwrapped", here)
		if fingerprint(t, s.store, here) != fingerprint(t, s.other, there) {
			t.Error("unwrapped another key")
		}
	})
}
