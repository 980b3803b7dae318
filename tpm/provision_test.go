package tpm_test

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// storageKey is the public area that a peer gets.
func storageKey(t *testing.T, s *tpm.Store) []byte {
	t.Helper()
	_, public, err := s.StorageKey()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(public)
}

// TestImportDuplicate provisions the keys of a peer, and finds them again after
// the TPM was off.
func TestImportDuplicate(t *testing.T) {
	s, p, c := newStore(t)
	raws := map[keystore.Algorithm][]byte{
		keystore.AES128CBC: random(16), keystore.HMACSHA256: random(32), keystore.AESReveal128: random(16),
		keystore.HMACSHA256Block: keystore.HMACBlock(random(32)),
	}
	for a, raw := range raws {
		for version := range uint32(2) {
			d := must[keystore.Duplicated](t)(tpm.Duplicate(storageKey(t, s), a, raw))
			v := must[keystore.Version](t)(s.ImportDuplicate(a.String(), a, d))
			if v.Number != version+1 || v.Key.Algorithm() != a {
				t.Errorf("%v: version %d of %v", a, v.Number, v.Key.Algorithm())
			}
		}
	}
	for _, i := range must[[]keystore.Info](t)(s.List()) {
		if raws[i.Algorithm] != nil && (i.Local || i.NeverExtractable || !i.Sensitive || len(i.Weaknesses) > 0) {
			t.Errorf("a key of a peer: %+v", i)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, device(t, p), c)
	for a, raw := range raws {
		k := must[[]keystore.Version](t)(again.Lookup(a.String()))[0].Key
		if !same(t, k, raw) {
			t.Errorf("%v is another key", a)
		}
		_, err := again.Seal(k, nil)
		if err == nil {
			t.Errorf("a provisioned %v key was sealed", a)
		}
	}
}

// same checks whether a key has these bytes.
func same(t *testing.T, k keystore.Key, raw []byte) bool {
	t.Helper()
	peer := soft.New()
	defer peer.Close()
	if k.Algorithm() == keystore.AESReveal128 {
		w := must[keystore.Key](t)(peer.Import(keystore.AESWrap128, raw)).(keystore.DataWrapper)
		data := random(32)
		wrapped := must[[]byte](t)(w.WrapData(data))
		return bytes.Equal(must[[]byte](t)(k.(keystore.Revealer).Reveal(wrapped)), data)
	}
	return bytes.Equal(compute(t, k), compute(t, must[keystore.Key](t)(peer.Import(k.Algorithm(), raw))))
}

// TestImportDuplicateRefused checks that nothing is provisioned which could leave
// the TPM, or is for another one.
func TestImportDuplicateRefused(t *testing.T) {
	s, _, _ := newStore(t)
	other, _, _ := newStore(t)
	good := must[keystore.Duplicated](t)(tpm.Duplicate(storageKey(t, s), keystore.HMACSHA256, random(32)))
	edit := func(change func(*tpm2.TPMTPublic)) keystore.Duplicated {
		public := must[*tpm2.TPMTPublic](t)(tpm2.Unmarshal[tpm2.TPMTPublic](good.Public))
		change(public)
		return keystore.Duplicated{Public: tpm2.Marshal(public), Duplicate: good.Duplicate, Seed: good.Seed}
	}
	parent := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer parent.Close()
	must[keystore.Version](t)(s.Create("taken", keystore.AES128CBC))
	for what, test := range map[string]struct {
		label string
		a     keystore.Algorithm
		d     keystore.Duplicated
		want  error
	}{
		"no label":              {"", keystore.HMACSHA256, good, keystore.ErrWrongKey},
		"the sealing key":       {tpm.SealLabel, keystore.HMACSHA256, good, keystore.ErrWrongKey},
		"a sealing key":         {"key", keystore.SealMAC256, good, keystore.ErrWrongKey},
		"a label in use":        {"taken", keystore.HMACSHA256, good, keystore.ErrExists},
		"another algorithm":     {"key", keystore.AES128CBC, good, keystore.ErrWeakKey},
		"a policy to duplicate": {"key", keystore.HMACSHA256, edit(func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = random(32) }), keystore.ErrWeakKey},
		"attack protection":     {"key", keystore.HMACSHA256, edit(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false }), keystore.ErrWeakKey},
		"a changed duplicate":   {"key", keystore.HMACSHA256, keystore.Duplicated{Public: good.Public, Duplicate: flip(good.Duplicate), Seed: good.Seed}, keystore.ErrBadData},
		"no public area":        {"key", keystore.HMACSHA256, keystore.Duplicated{Duplicate: good.Duplicate, Seed: good.Seed}, keystore.ErrBadData},
		"another TPM": {"key", keystore.HMACSHA256,
			must[keystore.Duplicated](t)(tpm.Duplicate(storageKey(t, other), keystore.HMACSHA256, random(32))), keystore.ErrBadData},
		"another parent": {"key", keystore.HMACSHA256,
			must[keystore.Duplicated](t)(tpm.Duplicate(parent.Public(), keystore.HMACSHA256, random(32))), keystore.ErrBadData},
	} {
		_, err := s.ImportDuplicate(test.label, test.a, test.d)
		is(t, what, err, test.want)
	}
	_, err := s.Lookup("key")
	is(t, "a key that was refused", err, keystore.ErrNotFound)
	must[keystore.Version](t)(s.ImportDuplicate("key", keystore.HMACSHA256, good))
	s.Close()
	_, err = s.ImportDuplicate("key", keystore.HMACSHA256, good)
	is(t, "a closed store", err, keystore.ErrClosed)
}

// TestWithStorageKey borrows the storage key.
func TestWithStorageKey(t *testing.T) {
	s, _, _ := newStore(t)
	err := s.WithStorageKey(func(tp transport.TPM, key tpm2.NamedHandle) error {
		answer, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(tp)
		if err == nil && !bytes.Equal(answer.OutPublic.Bytes(), storageKey(t, s)) {
			t.Error("another key was lent")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	s.Close()
	is(t, "a closed store", s.WithStorageKey(nil), keystore.ErrClosed)
}
