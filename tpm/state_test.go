package tpm_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func TestStateDamaged(t *testing.T) {
	s, _, c := newStore(t)
	must[keystore.Version](t)(s.Create("key", keystore.HMACSHA256))
	good := must[[]byte](t)(os.ReadFile(c.State))
	if info := must[os.FileInfo](t)(os.Stat(c.State)); info.Mode().Perm() != 0o600 {
		t.Errorf("the state file has mode %v", info.Mode())
	}
	write := func(data []byte) error {
		if err := os.WriteFile(c.State, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Device().OpenStore(c)
		return err
	}
	for at := 0; at < len(good); at += 11 {
		bad := slices.Clone(good)
		bad[at] ^= 1
		says(t, fmt.Sprintf("byte %d changed", at), write(bad), keystore.ErrBadData, c.State, "copy")
	}
	for _, n := range []int{0, 1, 20, 90, len(good) / 2, len(good) - 1} {
		says(t, fmt.Sprintf("cut off at %d", n), write(good[:n]), keystore.ErrBadData, "copy")
	}
	says(t, "noise", write(random(500)), keystore.ErrBadData, "copy")
	for what, text := range map[string]string{
		"nothing in it":     `{}`,
		"an unknown member": `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[],"more":1}`,
		"two objects":       `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[]} {}`,
		"a strange handle":  `{"storage_key":{"handle":"0x40000001","public":"AAAA"},"keys":[]}`,
		"no handle":         `{"storage_key":{"handle":"0x0","public":"AAAA"},"keys":[]}`,
		"no storage key":    `{"storage_key":{"handle":"0x81000001","public":""},"keys":[]}`,
		"no algorithm":      `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":1}]}`,
		"an unknown key":    `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":1,"algorithm":"rot13"}]}`,
		"a version twice":   `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":1,"algorithm":"hmac-sha256"},{"label":"a","version":1,"algorithm":"hmac-sha256"}]}`,
		"mixed algorithms":  `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":1,"algorithm":"hmac-sha256"},{"label":"a","version":2,"algorithm":"aes128-cbc"}]}`,
		"version 0":         `{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":0,"algorithm":"hmac-sha256"}]}`,
	} {
		says(t, what, write(fmt.Appendf(nil, "msl-hsm tpm state v1 %x\n%s", sha256.Sum256([]byte(text)), text)), keystore.ErrBadData)
	}
	// A running store keeps working, and does not overwrite what it did not read.
	if _, err := s.Lookup("key"); err != nil {
		t.Error(err)
	}
	_, err := s.Create("key", keystore.HMACSHA256)
	is(t, "create beside a damaged file", err, keystore.ErrBadData)
	if err := os.Remove(c.State); err != nil {
		t.Fatal(err)
	}
	_, err = s.Create("key", keystore.HMACSHA256)
	is(t, "create without the file", err, keystore.ErrNotFound)
	_, err = s.Device().OpenStore(c)
	says(t, "a missing file", err, keystore.ErrNotFound, "initialize", c.State)
	if err := write(good); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(c.State, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = s.Device().OpenStore(c)
	says(t, "a file that others write", err, keystore.ErrWeakKey, "chmod 600")
	_, err = s.Device().OpenStore(tpm.StoreConfig{})
	says(t, "no file", err, keystore.ErrNotFound, "?state=")
}

// TestStateForged puts keys under other names, as an attacker can who writes the file
// and computes its checksum.
func TestStateForged(t *testing.T) {
	s, _, c := newStore(t)
	must[keystore.Version](t)(s.Create("mac", keystore.HMACSHA256))
	must[keystore.Version](t)(s.Create("sign", keystore.ECDSAP256))
	data := must[[]byte](t)(os.ReadFile(c.State))
	_, text, _ := bytes.Cut(data, []byte("\n"))
	text = bytes.Replace(text, []byte(`"hmac-sha256"`), []byte(`"ecdsa-p256"`), 1)
	if err := os.WriteFile(c.State, fmt.Appendf(nil, "msl-hsm tpm state v1 %x\n%s", sha256.Sum256(text), text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Device().OpenStore(c)
	if err != nil {
		t.Fatal(err)
	}
	forged := openStore(t, s.Device(), c)
	_, err = forged.Lookup("mac")
	is(t, "a key under another algorithm", err, keystore.ErrWeakKey)
	for _, info := range must[[]keystore.Info](t)(forged.List()) {
		if (info.Label == "mac") != (len(info.Weaknesses) > 0) {
			t.Errorf("%s is listed with weaknesses %q", info.Label, info.Weaknesses)
		}
	}
}

// TestTwoStores changes keys through two stores of one state file, as two
// processes do.
func TestTwoStores(t *testing.T) {
	a, _, c := newStore(t)
	b := openStore(t, a.Device(), c)
	must[keystore.Version](t)(a.Create("key", keystore.HMACSHA256))
	k := must[[]keystore.Version](t)(b.Lookup("key"))[0].Key
	want := sum(t, k)
	if v := must[keystore.Version](t)(b.Create("key", keystore.HMACSHA256)); v.Number != 2 {
		t.Errorf("version %d after another store's first", v.Number)
	}
	if ring := must[[]keystore.Version](t)(a.Lookup("key")); len(ring) != 2 || !bytes.Equal(sum(t, ring[1].Key), want) {
		t.Error("the stores see other keys")
	}
	sealed := must[[]byte](t)(a.Seal(must[keystore.Key](t)(a.Generate(keystore.HMACSHA256)), nil))
	must[keystore.Version](t)(a.Create(tpm.SealLabel, keystore.SealMAC256))
	again := must[[]byte](t)(a.Seal(must[keystore.Key](t)(a.Generate(keystore.HMACSHA256)), nil))
	for _, blob := range [][]byte{sealed, again} {
		must[keystore.Key](t)(b.Unseal(keystore.HMACSHA256, blob, nil)).Close()
	}
	if err := a.Destroy("key", 1); err != nil {
		t.Fatal(err)
	}
	if err := a.Destroy(tpm.SealLabel, 1); err != nil {
		t.Fatal(err)
	}
	_, err := b.Unseal(keystore.HMACSHA256, sealed, nil)
	is(t, "unseal with a destroyed sealing key", err, keystore.ErrForeign)
	_, err = k.(keystore.MAC).Sum(nil)
	is(t, "a key that another store destroyed", err, keystore.ErrClosed)
	must[keystore.Key](t)(b.Unseal(keystore.HMACSHA256, again, nil)).Close()
}

func TestPersist(t *testing.T) {
	p := tpmtest.Start(t)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), SRK: 0x81000007}
	d := device(t, p)
	s := must[*tpm.Store](t)(d.InitStore(c))
	defer s.Close()
	if handle, _, err := s.StorageKey(); err != nil || uint32(handle) != c.SRK {
		t.Errorf("storage key at %#x, %v", uint32(handle), err)
	}
	v := must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	sign(t, v.Key)
	if err := s.Persist("key", 1, 0x81000011); err != nil {
		t.Fatal(err)
	}
	sign(t, v.Key)
	is(t, "persist twice", s.Persist("key", 1, 0x81000012), keystore.ErrExists)
	is(t, "persist a missing one", s.Persist("key", 2, 0x81000012), keystore.ErrNotFound)
	must[keystore.Version](t)(s.Create("other", keystore.ECDSAP256))
	says(t, "two keys at one handle", s.Persist("other", 1, 0x81000011), keystore.ErrExists, "TPM_RC_NV_DEFINED")
	s.Close()
	p.Kill()
	s = openStore(t, d, c)
	sign(t, must[[]keystore.Version](t)(s.Lookup("key"))[0].Key)
	if err := s.Destroy("key", 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Persist("other", 1, 0x81000011); err != nil {
		t.Errorf("the handle was not freed: %v", err)
	}
	isEmpty(t, s)
}

// TestStorageKeyOfOthers uses an RSA storage key that the operating system has
// made, and refuses keys that are not storage keys.
func TestStorageKeyOfOthers(t *testing.T) {
	p, _ := tpmtest.StartCertified(t) // with an endorsement key at 0x81010001
	d := device(t, p)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), SRK: 0x81010001}
	_, err := d.InitStore(c)
	says(t, "an endorsement key", err, keystore.ErrWrongKey, "0x81010001", "srk=0x81000001")
	persistRSA(t, d, 0x81000001)
	c.SRK = 0
	s := must[*tpm.Store](t)(d.InitStore(c))
	defer s.Close()
	if err := work(s); err != nil {
		t.Error(err)
	}
	k := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer k.Close()
	dup := must[keystore.Duplicated](t)(tpm.Duplicate(k.Public(), keystore.HMACSHA256, make([]byte, 32)))
	imported := must[keystore.Key](t)(k.Import(keystore.HMACSHA256, dup))
	defer imported.Close()
	if !bytes.Equal(sum(t, imported), hmacOf(make([]byte, 32))) {
		t.Error("another key")
	}
}
