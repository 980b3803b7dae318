package soft_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

const (
	magic  = "msl-hsm soft keys\n"
	before = magic + "\x02" // the length of the header
)

// headerOf returns the header of a file.
func headerOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest, found := bytes.CutPrefix(data, []byte(before))
	if !found {
		t.Fatalf("%s is not of version 2: %q", path, data[:len(before)])
	}
	return string(rest[2:][:binary.BigEndian.Uint16(rest)])
}

// joined returns a file of version 2 with a right checksum.
func joined(header string, records []byte) []byte {
	data := binary.BigEndian.AppendUint16([]byte(before), uint16(len(header)))
	data = append(append(data, header...), records...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// recordsOf returns a file without its header and checksum.
func recordsOf(t *testing.T, path string) []byte {
	t.Helper()
	skip := len(before) + 2 + len(headerOf(t, path))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data[skip : len(data)-sha256.Size]
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "written")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkGolden checks a store that has the keys of the files in testdata.
func checkGolden(t *testing.T, s *soft.Store) {
	t.Helper()
	blob, err := os.ReadFile("testdata/version1.sealed")
	if err != nil {
		t.Fatal(err)
	}
	want, err := keystore.Find[keystore.MAC](s, "mac")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Unseal(keystore.HMACSHA256, blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := want.Sum([]byte("data"))
	b, err := sealed.(keystore.MAC).Sum([]byte("data"))
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("other keys: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 5 {
		t.Errorf("%d keys, %v", len(all), err)
	}
}

// TestVersion1 opens a file of an older version, and makes one of version 2 of it.
func TestVersion1(t *testing.T) {
	old, err := os.ReadFile("testdata/version1.keys")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, old)
	s, err := soft.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkGolden(t, s)
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("opening changed the file: %v", err)
	}
	if _, err := s.Create("another", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy("another", 0); err != nil {
		t.Fatal(err)
	}
	if h := headerOf(t, path); !strings.Contains(h, `"cipher":"XChaCha20-Poly1305","kdf":"Argon2id"`) || !strings.Contains(h, `"time":3,"memory":65536,"threads":4`) {
		t.Errorf("the header is %s", h)
	}
	again, err := soft.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	checkGolden(t, again)
	if _, err := soft.Open("testdata/version1.keys", []byte("another")); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("another passphrase: %v", err)
	}
}

// TestVersion2 opens files that an earlier build wrote, one of them in FIPS mode.
func TestVersion2(t *testing.T) {
	for _, name := range []string{"version2.keys", "version2fips.keys"} {
		s, err := soft.Open(filepath.Join("testdata", name), []byte("passphrase"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		checkGolden(t, s)
	}
}

// TestHeader changes the header of a file, with a right checksum.
func TestHeader(t *testing.T) {
	s, path := create(t)
	s.Close()
	header, records := headerOf(t, path), recordsOf(t, path)
	for name, c := range map[string]struct {
		old, new string
		want     error
		text     string
	}{
		"as it was":        {"", "", nil, ""},
		"another cost":     {`"time":1`, `"time":2`, keystore.ErrPIN, "wrong passphrase"},
		"more threads":     {`"memory":8,"threads":1`, `"memory":16,"threads":2`, keystore.ErrPIN, "wrong passphrase"},
		"no cost":          {`"time":1,"memory":8,"threads":1`, `"iterations":0`, errors.ErrUnsupported, "use a newer one"},
		"no memory":        {`"memory":8`, `"memory":7`, keystore.ErrBadData, "not possible"},
		"no thread":        {`"threads":1`, `"threads":0`, errors.ErrUnsupported, "use a newer one"},
		"two functions":    {`"threads":1`, `"threads":1,"iterations":1`, errors.ErrUnsupported, "does not know"},
		"AES with Argon2":  {"XChaCha20-Poly1305", "AES-256-GCM", errors.ErrUnsupported, `"AES-256-GCM"`},
		"PBKDF2":           {`"XChaCha20-Poly1305","kdf":"Argon2id"`, `"AES-256-GCM","kdf":"PBKDF2-HMAC-SHA256"`, errors.ErrUnsupported, "PBKDF2"},
		"a memory bomb":    {`"memory":8`, `"memory":4294967295`, keystore.ErrBadData, "at most 1048576 KiB"},
		"a long wait":      {`"time":1`, `"time":4294967295`, keystore.ErrBadData, "at most"},
		"too large":        {`"time":1`, `"time":4294967296`, keystore.ErrBadData, "cannot be read"},
		"another cipher":   {"XChaCha20-Poly1305", "ROT13", errors.ErrUnsupported, `"ROT13"`},
		"another KDF":      {"Argon2id", "MD5", errors.ErrUnsupported, `"MD5"`},
		"a member more":    {`"threads":1`, `"threads":1,"pepper":1`, errors.ErrUnsupported, "use a newer one"},
		"a member twice":   {`"time":1`, `"time":1,"time":1`, errors.ErrUnsupported, "use a newer one"},
		"a short salt":     {`"salt":"`, `"salt":"","salt":"`, errors.ErrUnsupported, "use a newer one"},
		"not an object":    {header, "[]", keystore.ErrBadData, "cannot be read"},
		"an empty header":  {header, "", keystore.ErrBadData, "cannot be read"},
		"an empty object":  {header, "{}", errors.ErrUnsupported, ""},
		"spaces":           {":1", ": 1", errors.ErrUnsupported, "use a newer one"},
		"a tail":           {"}", "} ", errors.ErrUnsupported, "use a newer one"},
		"other upper case": {"cipher", "Cipher", errors.ErrUnsupported, "use a newer one"},
	} {
		changed := strings.Replace(header, c.old, c.new, 1)
		s, err := cheap().Open(write(t, joined(changed, records)), []byte("passphrase"))
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil {
			s.Close()
		}
	}
	for _, n := range []int{0, 1, 23, 24, 39} {
		if _, err := cheap().Open(write(t, joined(header, records[:n])), []byte("passphrase")); !errors.Is(err, keystore.ErrBadData) && !errors.Is(err, keystore.ErrPIN) {
			t.Errorf("%d bytes after the header: %v", n, err)
		}
	}
}

// TestHeaderIsAuthenticated writes the records of a file of version 1 after a header that
// has the same key: only the associated data differs.
func TestHeaderIsAuthenticated(t *testing.T) {
	s, path := create(t)
	s.Close()
	header, records := headerOf(t, path), recordsOf(t, path)
	if _, err := cheap().Open(write(t, joined(header, records)), []byte("passphrase")); err != nil {
		t.Fatalf("the same file: %v", err)
	}
	old, err := os.ReadFile("testdata/version1.keys")
	if err != nil {
		t.Fatal(err)
	}
	salt, first := old[len(before):][:16], old[len(before)+16:len(old)-sha256.Size]
	same := strings.Replace(header, `"time":1,"memory":8,"threads":1`, `"time":3,"memory":65536,"threads":4`, 1)
	at := strings.Index(same, `"salt":"`) + len(`"salt":"`)
	same = same[:at] + base64.StdEncoding.EncodeToString(salt) + same[at+24:]
	if _, err := soft.Open(write(t, joined(same, first)), []byte("passphrase")); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("records with another header: %v", err)
	}
}

// TestCheapFile makes and opens a file whose passphrase is guessed easily.
func TestCheapFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := (soft.Config{Cost: cheap().Cost}).Create(path, []byte("passphrase")); !errors.Is(err, keystore.ErrWeakKey) {
		t.Errorf("made a cheap file: %v", err)
	}
	s, path := create(t)
	s.Close()
	if _, err := soft.Open(path, []byte("passphrase")); !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), "too little") {
		t.Errorf("opened a cheap file: %v", err)
	}
}

// TestKeptCost opens a file whose cost earlier versions accepted, and makes none.
func TestKeptCost(t *testing.T) {
	kept := soft.Cost{Time: 1, Memory: 35 << 10, Threads: 4}
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := (soft.Config{Cost: kept}).Create(path, []byte("passphrase")); !errors.Is(err, keystore.ErrWeakKey) {
		t.Errorf("made a file below the minimum: %v", err)
	}
	earlier := cheap()
	earlier.Cost = kept
	s, err := earlier.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = soft.Open(path, []byte("passphrase")); err != nil {
		t.Fatalf("a file of an earlier version: %v", err)
	}
	s.Close()
}

// TestCostChanges opens a file with another cost: it is written with it when its keys
// change, and with a fresh salt.
func TestCostChanges(t *testing.T) {
	s, path := create(t)
	s.Close()
	was := headerOf(t, path)
	other := cheap()
	other.Cost.Time = 2
	s, err := other.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if headerOf(t, path) != was {
		t.Error("opening changed the file")
	}
	if _, err := s.Create("key", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	now := headerOf(t, path)
	salt := func(h string) string { _, h, _ = strings.Cut(h, `"salt"`); return h[:26] }
	if !strings.Contains(now, `"time":2`) || salt(now) == salt(was) {
		t.Errorf("the header was %s and is %s", was, now)
	}
	keep := soft.Config{CheapForTests: true}
	for range 2 {
		again, err := keep.Open(path, []byte("passphrase"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Create("key", keystore.AES128CBC); err != nil || headerOf(t, path) != now {
			t.Errorf("%v, and the header is %s", err, headerOf(t, path))
		}
		again.Close()
	}
}
