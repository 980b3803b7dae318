package soft_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// cheap opens a file in no time.
func cheap() soft.Config {
	return soft.Config{Cost: soft.Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}
}

func create(t *testing.T) (*soft.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	s, err := cheap().Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func open(t *testing.T, path string) *soft.Store {
	t.Helper()
	s, err := cheap().Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFileKeepsKeys(t *testing.T) {
	s, path := create(t)
	raw := bytes.Repeat([]byte{7}, 32)
	if _, err := s.Provision("mac", keystore.HMACSHA256, raw); err != nil {
		t.Fatal(err)
	}
	for _, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.AES128CBC, keystore.ECDSAP256, keystore.RSAUnwrap2048} {
		if _, err := s.Create(a.String(), a); err != nil {
			t.Fatal(err)
		}
	}
	k, err := s.Import(keystore.HMACSHA256, raw)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want, err := k.(keystore.MAC).Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()

	s = open(t, path)
	after, err := s.List()
	if err != nil || len(after) != 8 || len(after) != len(before) {
		t.Fatalf("%d keys before, %d after: %v", len(before), len(after), err)
	}
	for i := range after {
		if after[i].Label != before[i].Label || after[i].Version != before[i].Version || after[i].Local != before[i].Local {
			t.Errorf("%+v became %+v", before[i], after[i])
		}
	}
	versions, err := s.Lookup("mac")
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Unseal(keystore.HMACSHA256, blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []keystore.Key{versions[0].Key, u} {
		if got, err := k.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("another key after opening: %v", err)
		}
	}
}

func TestFileSealingRings(t *testing.T) {
	s, path := create(t)
	k, _ := s.Generate(keystore.AESWrap128)
	old, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	for label, a := range map[string]keystore.Algorithm{
		"msl-seal-session":  keystore.SealSession256,
		"msl-seal-wrapping": keystore.SealWrapping256,
		"msl-seal-mac":      keystore.SealMAC256,
	} {
		if v, err := s.Create(label, a); err != nil || v.Number != 2 {
			t.Fatalf("%s: version %d, %v", label, v.Number, err)
		}
		if _, err := s.Create("elsewhere", a); !errors.Is(err, keystore.ErrWrongKey) {
			t.Errorf("%v under another label: %v", a, err)
		}
		if _, err := s.Create(label, keystore.AES256CBC); !errors.Is(err, keystore.ErrWrongKey) {
			t.Errorf("another algorithm under %s: %v", label, err)
		}
	}
	s.Close()
	s = open(t, path)
	k, _ = s.Generate(keystore.AESWrap128)
	blob, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := keystore.ParseSealed(blob); err != nil || sealed.KEKVersion != 2 {
		t.Errorf("sealed under version %d, %v", sealed.KEKVersion, err)
	}
	for _, b := range [][]byte{old, blob} {
		if _, err := s.Unseal(keystore.AESWrap128, b, nil); err != nil {
			t.Errorf("unseal: %v", err)
		}
	}
	if err := s.Destroy("msl-seal-wrapping", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unseal(keystore.AESWrap128, old, nil); !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("unseal without the sealing key: %v", err)
	}
}

func TestFileRefusals(t *testing.T) {
	s, path := create(t)
	s.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for what, test := range map[string]struct {
		path, passphrase string
		want             error
	}{
		"wrong passphrase": {path, "Passphrase", keystore.ErrPIN},
		"no passphrase":    {path, "", keystore.ErrPIN},
		"no file":          {path + "x", "passphrase", keystore.ErrNotFound},
		"a directory":      {filepath.Dir(path), "passphrase", keystore.ErrBadData},
	} {
		if _, err := cheap().Open(test.path, []byte(test.passphrase)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
	if _, err := cheap().Create(path, []byte("passphrase")); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("create over a file: %v", err)
	}
	if _, err := cheap().Create(path+"2", nil); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("create without a passphrase: %v", err)
	}
	open(t, path)
}

func TestFileDamage(t *testing.T) {
	s, path := create(t)
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(data []byte, want error) {
		t.Helper()
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cheap().Open(bad, []byte("passphrase")); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", len(data), err, want)
		}
	}
	for i := range good {
		forged := slices.Clone(good)
		forged[i] ^= 1
		refused(forged, keystore.ErrBadData)
	}
	for n := 0; n < len(good); n += 13 {
		refused(good[:n], keystore.ErrBadData)
	}
	// Who can compute the checksum still cannot change a key.
	sum := func(data []byte) []byte {
		s := sha256.Sum256(data)
		return append(data, s[:]...)
	}
	forged := slices.Clone(good[:len(good)-32])
	forged[len(forged)-40] ^= 1
	refused(sum(forged), keystore.ErrPIN)
	forged = slices.Clone(good[:len(good)-32])
	forged[len("msl-hsm soft keys\n")] = 3
	refused(sum(forged), errors.ErrUnsupported)
}

func TestFileChangedElsewhere(t *testing.T) {
	first, path := create(t)
	second := open(t, path)
	if _, err := first.Create("one", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Create("two", keystore.AES128CBC); !errors.Is(err, keystore.ErrBusy) {
		t.Errorf("a change that would undo another: %v", err)
	}
	if _, err := second.Lookup("two"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key that was not written is there: %v", err)
	}
	if _, err := first.Create("one", keystore.AES128CBC); err != nil {
		t.Errorf("the store that wrote last: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left: %v", len(entries), err)
	}
}

func TestFileUnwritable(t *testing.T) {
	s, path := create(t)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("key", keystore.AES128CBC); err == nil {
		t.Fatal("created a key without its file")
	}
	if _, err := s.Lookup("key"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key that was not written is there: %v", err)
	}
	if err := s.Destroy("msl-seal-mac", 1); err == nil {
		t.Error("destroyed a key without its file")
	}
	if _, err := s.Lookup("msl-seal-mac"); err != nil {
		t.Errorf("a key that was not destroyed is gone: %v", err)
	}
}

// A sealing key that is not there says nothing about a blob.
func TestUnsealWithoutSealingKeys(t *testing.T) {
	for _, missing := range []string{"msl-seal-wrapping", "msl-seal-mac"} {
		s := soft.New()
		k, err := s.Generate(keystore.AESWrap128)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Destroy(missing, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unseal(keystore.AESWrap128, blob, nil); !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrForeign) {
			t.Errorf("without %s: %v", missing, err)
		}
		s.Close()
		if _, err := s.Unseal(keystore.AESWrap128, blob, nil); !errors.Is(err, keystore.ErrClosed) {
			t.Errorf("of a closed store: %v", err)
		}
	}
}

// A store of another prefix has sealing keys of its own, in the same file too.
func TestSealPrefix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	s, err := cheap().Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	net := cheap()
	net.SealPrefix = "net"
	s, err = net.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seal := func() error {
		k, err := s.Generate(keystore.HMACSHA256)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, nil)
		if err != nil {
			return err
		}
		_, err = s.Unseal(keystore.HMACSHA256, blob, nil)
		return err
	}
	if err := seal(); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("sealed without sealing keys: %v", err)
	}
	for _, role := range keystore.SealingRoles() {
		if v, err := s.Create(role.Label("net"), role.Algorithm()); err != nil || v.Number != 1 {
			t.Errorf("create %s: version %d, %v", role, v.Number, err)
		}
	}
	if err := seal(); err != nil {
		t.Error(err)
	}
	for _, label := range []string{"msl-seal-mac", "net-other"} {
		if _, err := s.Create(label, keystore.SealMAC256); !errors.Is(err, keystore.ErrWrongKey) {
			t.Errorf("created the sealing key %q: %v", label, err)
		}
	}
}
