package tpm_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// is fails the test unless err is want.
func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func sum(t testing.TB, k keystore.Key) []byte {
	t.Helper()
	return must[[]byte](t)(k.(keystore.MAC).Sum([]byte("data")))
}

func hmacOf(raw []byte) []byte {
	h := hmac.New(sha256.New, raw)
	h.Write([]byte("data"))
	return h.Sum(nil)
}

// TestImportUnderOthers takes session keys under storage keys of other programs, which encrypt
// what is under them with AES-256.
func TestImportUnderOthers(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	for at, curve := range map[tpm2.TPMHandle]tpm2.TPMECCCurve{0x81000001: tpm2.TPMECCNistP384, 0x81000005: tpm2.TPMECCNistP256} {
		root := tpm2.ECCSRKTemplate
		cipher := tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}
		root.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: cipher, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, CurveID: curve, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		})
		root.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
		persistPrimary(t, d, at, root)
		s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), SRK: uint32(at)}))
		defer s.Close()
		p := must[*tpm.ImportParent](t)(s.NewImportParent())
		raw := random(32)
		k := must[keystore.Key](t)(p.Import(keystore.HMACSHA256, must[keystore.Duplicated](t)(tpm.Duplicate(p.Public(), keystore.HMACSHA256, raw))))
		if !bytes.Equal(sum(t, k), hmacOf(raw)) {
			t.Errorf("under a key on curve %v: imported another key", curve)
		}
	}
}

// TestImportParent takes session keys from a peer, and keeps them over eviction
// and sealing.
func TestImportParent(t *testing.T) {
	s, _, _ := newStore(t)
	peer := soft.New()
	defer peer.Close()
	p := must[*tpm.ImportParent](t)(s.NewImportParent())
	var keys []keystore.Key
	var raws [][]byte
	for range 4 { // more than there is room for
		raw := random(32)
		d := must[keystore.Duplicated](t)(tpm.Duplicate(p.Public(), keystore.HMACSHA256, raw))
		keys = append(keys, must[keystore.Key](t)(p.Import(keystore.HMACSHA256, d)))
		raws = append(raws, raw)
	}
	for _, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.AES256CBC, keystore.AESCMAC128} {
		raw := random(a.Size())
		d := must[keystore.Duplicated](t)(tpm.Duplicate(p.Public(), a, raw))
		k := must[keystore.Key](t)(p.Import(a, d))
		want := must[keystore.Key](t)(peer.Import(a, raw))
		if !bytes.Equal(compute(t, k), compute(t, want)) {
			t.Errorf("%v: imported another key", a)
		}
		k.Close()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	_, err := p.Import(keystore.HMACSHA256, keystore.Duplicated{})
	is(t, "import after close", err, keystore.ErrClosed)
	for i, k := range keys {
		blob := must[[]byte](t)(s.Seal(k, nil))
		u := must[keystore.Key](t)(s.Unseal(keystore.HMACSHA256, blob, nil))
		for _, k := range []keystore.Key{k, u} {
			if !bytes.Equal(sum(t, k), hmacOf(raws[i])) {
				t.Errorf("key %d is another", i)
			}
		}
		k.Close()
		u.Close()
	}
	isEmpty(t, s)
}

func compute(t testing.TB, k keystore.Key) []byte {
	t.Helper()
	if c, ok := k.(keystore.Cipher); ok {
		return must[[]byte](t)(c.Encrypt(make([]byte, 16), []byte("data")))
	}
	return sum(t, k)
}

// TestImportRefused checks that neither a peer nor an attacker in between can import a
// key into the TPM that could leave it, or that is not the agreed one.
func TestImportRefused(t *testing.T) {
	s, _, _ := newStore(t)
	p := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer p.Close()
	d := must[keystore.Duplicated](t)(tpm.Duplicate(p.Public(), keystore.HMACSHA256, random(32)))
	edit := func(change func(*tpm2.TPMTPublic)) keystore.Duplicated {
		public := must[*tpm2.TPMTPublic](t)(tpm2.Unmarshal[tpm2.TPMTPublic](d.Public))
		change(public)
		return keystore.Duplicated{Public: tpm2.Marshal(public), Duplicate: d.Duplicate, Seed: d.Seed}
	}
	for what, test := range map[string]struct {
		d    keystore.Duplicated
		want error
	}{
		"a policy to duplicate": {edit(func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = random(32) }), keystore.ErrWeakKey},
		"another use":           {edit(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true }), keystore.ErrWeakKey},
		"a false origin":        {edit(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = true }), keystore.ErrWeakKey},
		"attack protection":     {edit(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false }), keystore.ErrWeakKey},
		"attributes of a made one": {edit(func(p *tpm2.TPMTPublic) {
			p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = true, true
		}), keystore.ErrWeakKey},
		"no public area":       {keystore.Duplicated{Duplicate: d.Duplicate, Seed: d.Seed}, keystore.ErrBadData},
		"a changed duplicate":  {keystore.Duplicated{Public: d.Public, Duplicate: flip(d.Duplicate), Seed: d.Seed}, keystore.ErrBadData},
		"a changed seed":       {keystore.Duplicated{Public: d.Public, Duplicate: d.Duplicate, Seed: flip(d.Seed)}, keystore.ErrBadData},
		"a cut-off duplicate":  {keystore.Duplicated{Public: d.Public, Duplicate: d.Duplicate[:20], Seed: d.Seed}, keystore.ErrBadData},
		"no seed":              {keystore.Duplicated{Public: d.Public, Duplicate: d.Duplicate}, keystore.ErrBadData},
		"another unique value": {keystore.Duplicated{Public: flip(d.Public), Duplicate: d.Duplicate, Seed: d.Seed}, keystore.ErrBadData},
	} {
		k, err := p.Import(keystore.HMACSHA256, test.d)
		is(t, what, err, test.want)
		if err == nil {
			k.Close()
		}
	}
	_, err := p.Import(keystore.AESCMAC128, d)
	is(t, "import as another algorithm", err, keystore.ErrWeakKey)
	reveals := must[keystore.Duplicated](t)(tpm.Duplicate(p.Public(), keystore.AESReveal128, random(16)))
	_, err = p.Import(keystore.AESReveal128, reveals)
	is(t, "import a session key that reveals", err, keystore.ErrWeakKey)
	other := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer other.Close()
	_, err = other.Import(keystore.HMACSHA256, d)
	is(t, "import under another parent", err, keystore.ErrBadData)
	must[keystore.Key](t)(p.Import(keystore.HMACSHA256, d)).Close()
	for _, a := range []keystore.Algorithm{keystore.ECDSAP256, keystore.AESWrap128, keystore.SealMAC256, 0} {
		if _, err := tpm.Duplicate(p.Public(), a, random(a.Size())); err == nil {
			t.Errorf("duplicated %v", a)
		}
	}
}

// flip changes the last byte.
func flip(b []byte) []byte {
	b = slices.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// TestWith certifies a session key with another key of the store, as an
// attestation does.
func TestWith(t *testing.T) {
	s, _, _ := newStore(t)
	k := must[keystore.Key](t)(s.Generate(keystore.ECDSAP256))
	defer k.Close()
	p := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer p.Close()
	err := p.With(func(tp transport.TPM, parent tpm2.NamedHandle) error {
		answer, err := tpm2.ReadPublic{ObjectHandle: parent.Handle}.Execute(tp)
		if err != nil {
			return err
		}
		if !bytes.Equal(answer.OutPublic.Bytes(), p.Public()) {
			t.Error("another key was lent")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = s.With(k, func(tp transport.TPM, key tpm2.NamedHandle) error {
		_, err := tpm2.Certify{
			ObjectHandle:   tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
			SignHandle:     tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: random(16)},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(tp)
		return tpm.CommandError("TPM2_Certify", err)
	})
	if err != nil {
		t.Error(err)
	}
}
