package tpm_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// asOpenSSL is the template of an elliptic curve key of tpm2-openssl: it signs and decrypts,
// leaves its scheme open, and is subject to the dictionary attack protection.
func asOpenSSL() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, Decrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// asOpenSSLRSA is the same for RSA.
func asOpenSSLRSA() tpm2.TPMTPublic {
	t := asOpenSSL()
	t.Type = tpm2.TPMAlgRSA
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}, KeyBits: 2048,
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return t
}

// ownerRSA is the template of TPM_RH_OWNER in key files whose parent is said to be RSA.
func ownerRSA() tpm2.TPMTPublic {
	t := tpm2.RSASRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return t
}

// ownerParent is the template of TPM_RH_OWNER in key files.
func ownerParent() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

// These stand for TPM_RH_OWNER and a key below it: RSA as the file says, and as tpm2_createprimary
// makes them, of which a file says nothing.
const belowRSA, belowTools, belowToolsRSA tpm2.TPMHandle = 1, 2, 3

// keyFile makes a key as another program does, and returns its file.
func keyFile(t *testing.T, d *tpm.Device, parent tpm2.TPMHandle, template tpm2.TPMTPublic, password string, emptyAuth bool) []byte {
	t.Helper()
	f := tpm.TSS2{EmptyAuth: emptyAuth, Parent: parent}
	root := ownerParent()
	switch parent {
	case belowRSA:
		f.Parent, f.RSAParent, root = tpm2.TPMRHOwner, true, ownerRSA()
	case belowTools:
		f.Parent, root.ObjectAttributes.NoDA = tpm2.TPMRHOwner, false
	case belowToolsRSA:
		f.Parent, root = tpm2.TPMRHOwner, ownerRSA()
		root.ObjectAttributes.NoDA = false
	}
	err := d.Do(func(tp transport.TPM) error {
		above := tpm2.AuthHandle{Handle: parent, Auth: tpm2.PasswordAuth(nil)}
		if f.Parent == tpm2.TPMRHOwner {
			made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(root)}.Execute(tp)
			if err != nil {
				return err
			}
			above.Handle, above.Name = made.ObjectHandle, made.Name
		} else {
			public, err := tpm2.ReadPublic{ObjectHandle: parent}.Execute(tp)
			if err != nil {
				return err
			}
			above.Name = public.Name
		}
		made, err := tpm2.Create{
			ParentHandle: above, InPublic: tpm2.New2B(template),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}},
		}.Execute(tp)
		if err != nil {
			return err
		}
		f.Public, f.Private = made.OutPublic.Bytes(), made.OutPrivate.Buffer
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return must[[]byte](t)(f.PEM())
}

// TestAdopt imports keys of other programs, under each kind of parent, and uses them after a
// restart. Written again, they are the same files.
func TestAdopt(t *testing.T) {
	const another, lockable = 0x81000007, 0x81000008
	p := tpmtest.Start(t)
	d := device(t, p)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}
	s := must[*tpm.Store](t)(d.InitStore(c))
	persistRSA(t, d, another)
	locking := ownerParent() // as tpm2_createprimary makes it
	locking.ObjectAttributes.NoDA = false
	persistPrimary(t, d, lockable, locking)
	type test struct {
		parent    tpm2.TPMHandle
		template  tpm2.TPMTPublic
		a         keystore.Algorithm
		password  string
		emptyAuth bool
	}
	tests := map[string]test{
		"under the storage key":     {0x81000001, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under another one":         {another, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under one without noda":    {lockable, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under the owner hierarchy": {tpm2.TPMRHOwner, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under an RSA owner key":    {belowRSA, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under a key of the tools":  {belowTools, asOpenSSL(), keystore.ECDSAP256, "", true},
		"under an RSA key of them":  {belowToolsRSA, asOpenSSL(), keystore.ECDSAP256, "", true},
		"with the PIN, unsaid":      {0x81000001, asOpenSSL(), keystore.ECDSAP256, "right", true},
		"with the PIN":              {0x81000001, asOpenSSL(), keystore.ECDSAP256, "right", false},
		"RSA that signs":            {0x81000001, asOpenSSLRSA(), keystore.RSASign2048, "", true},
		"RSA that decrypts":         {tpm2.TPMRHOwner, asOpenSSLRSA(), keystore.RSADecrypt2048, "", true},
	}
	for what, test := range tests {
		text := keyFile(t, d, test.parent, test.template, test.password, test.emptyAuth)
		v, err := s.ImportTSS2(what, test.a, text)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if test.a != keystore.RSADecrypt2048 {
			sign(t, v.Key)
		}
		corrected := what == "under an RSA key of them" || what == "with the PIN, unsaid" // the new file says so
		if again := must[[]byte](t)(s.ExportTSS2(what, 1)); string(again) == string(text) == corrected {
			t.Errorf("%s: written again it is another file", what)
		}
	}
	for _, i := range must[[]keystore.Info](t)(s.List()) {
		if len(i.Weaknesses) > 0 || !i.Sensitive || !i.NeverExtractable {
			t.Errorf("%+v", i)
		}
	}
	s.Close()
	d.Close()
	again := openStore(t, device(t, p), c)
	for what, test := range tests {
		k := must[[]keystore.Version](t)(again.Lookup(what))[0].Key
		if test.a != keystore.RSADecrypt2048 {
			sign(t, k)
		}
		if err := again.Destroy(what, 0); err != nil {
			t.Error(err)
		}
	}
}

// TestAdoptWithoutPIN imports files that say FALSE to emptyAuth, into a store without a PIN:
// programs write that where there is no password, too.
func TestAdoptWithoutPIN(t *testing.T) {
	s, _, c := newStore(t)
	d := s.Device()
	v := must[keystore.Version](t)(s.ImportTSS2("key", keystore.ECDSAP256, keyFile(t, d, 0x81000001, asOpenSSL(), "", false)))
	sign(t, v.Key)
	before := lockoutCounter(t, d)
	_, err := s.ImportTSS2("other", keystore.ECDSAP256, keyFile(t, d, 0x81000001, asOpenSSL(), "secret", false))
	says(t, "a password that is not known", err, keystore.ErrPIN, "it has a password, which must be the PIN of this store: TPM2_Sign: TPM_RC_AUTH_FAIL (session 1)")
	if strings.Contains(err.Error(), "wrong") {
		t.Errorf("none was given: %v", err)
	}
	if n := lockoutCounter(t, d) - before; n > 1 {
		t.Errorf("it was tried %d times", n)
	}
	_, err = s.Lookup("other")
	is(t, "what was refused", err, keystore.ErrNotFound)
	sign(t, must[[]keystore.Version](t)(openStore(t, d, c).Lookup("key"))[0].Key)
}

// sealedData is a template of data, with a policy.
func sealedData() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}

// TestAdoptRefused gives the true reason for each key that is not imported.
func TestAdoptRefused(t *testing.T) {
	s, _, _ := newStore(t)
	d := s.Device()
	other := device(t, tpmtest.Start(t))
	must[*tpm.Store](t)(other.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "other")})).Close()
	edit := func(change func(*tpm2.TPMTPublic)) []byte {
		template := asOpenSSL()
		change(&template)
		return keyFile(t, d, 0x81000001, template, "", true)
	}
	for what, test := range map[string]struct {
		text []byte
		want error
		word string
	}{
		"may move": {edit(func(p *tpm2.TPMTPublic) {
			p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent, p.AuthPolicy.Buffer = false, false, make([]byte, 32)
		}), keystore.ErrWeakKey, "moved to another TPM"},
		"a policy": {edit(func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) }), errors.ErrUnsupported, "it has a policy, which may let others use it"},
		"a policy alone": {edit(func(p *tpm2.TPMTPublic) {
			p.AuthPolicy.Buffer, p.ObjectAttributes.UserWithAuth = make([]byte, 32), false
		}), errors.ErrUnsupported, "it can be used only with a policy, which this store cannot satisfy"},
		"sealed data": {must[[]byte](t)((&tpm.TSS2{Parent: 0x81000001, Public: tpm2.Marshal(sealedData()), Private: []byte("x")}).PEM()), errors.ErrUnsupported, "it is sealed data, not a key"},
		"storage":     {edit(func(p *tpm2.TPMTPublic) { *p = ownerParent() }), errors.ErrUnsupported, "it is a storage key"},
		"restricted": {edit(func(p *tpm2.TPMTPublic) {
			p.ObjectAttributes.Restricted, p.ObjectAttributes.Decrypt = true, false
			parms, _ := p.Parameters.ECCDetail()
			parms.Scheme = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}
		}), errors.ErrUnsupported, "restricted to data that the TPM itself made"},
		"SHA-384":     {edit(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA384 }), errors.ErrUnsupported, "SHA-256"},
		"does no job": {edit(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false }), keystore.ErrWrongKey, "not for ecdsa-p256"},
		"another TPM": {keyFile(t, other, 0x81000001, asOpenSSL(), "", true), keystore.ErrForeign, "the file belongs to another TPM, or"},
		"no parent":   {must[[]byte](t)((&tpm.TSS2{Parent: 0x81000099, Public: tpm2.Marshal(asOpenSSL()), Private: []byte("x")}).PEM()), keystore.ErrNotFound, "0x81000099"},
		"endorsement": {must[[]byte](t)((&tpm.TSS2{Parent: tpm2.TPMRHEndorsement, Public: tpm2.Marshal(asOpenSSL()), Private: []byte("x")}).PEM()), errors.ErrUnsupported, "owner hierarchy"},
	} {
		_, err := s.ImportTSS2("key", keystore.ECDSAP256, test.text)
		says(t, what, err, test.want, test.word)
	}
	_, err := s.Lookup("key")
	is(t, "what was refused", err, keystore.ErrNotFound)
	f := must[*tpm.TSS2](t)(tpm.ParseTSS2(keyFile(t, d, 0x81000001, asOpenSSLRSA(), "", true)))
	if got := f.Algorithms(); len(got) != 2 || got[0] != keystore.RSASign2048 || got[1] != keystore.RSADecrypt2048 || f.Usable() != nil {
		t.Errorf("algorithms %v, %v", got, f.Usable())
	}
}

// TestUsable names the scheme or mode for which a key is made and no algorithm is.
func TestUsable(t *testing.T) {
	pss := asOpenSSLRSA()
	parms, _ := pss.Parameters.RSADetail()
	parms.Scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})}
	curve := asOpenSSL()
	detail, _ := curve.Parameters.ECCDetail()
	detail.CurveID = tpm2.TPMECCNistP521
	cfb := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgSymCipher, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: curve.ObjectAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgSymCipher, &tpm2.TPMSSymCipherParms{Sym: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)), Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}}),
	}
	mac := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: curve.ObjectAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA384}),
		}}),
	}
	for word, p := range map[string]tpm2.TPMTPublic{"kind or size, for HMAC with SHA-384, is": mac, "kind or size, for RSAPSS with SHA-256, is": pss, "kind or size is": curve, "kind or size, for CFB, is": cfb} {
		says(t, word, (&tpm.TSS2{Public: tpm2.Marshal(p)}).Usable(), errors.ErrUnsupported, word)
	}
}

// unsaid takes out of a key file whether the key has a password.
func unsaid(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	const field = "\xa0\x03\x01\x01" // [0] BOOLEAN
	at := bytes.Index(block.Bytes, []byte(field))
	if at < 0 || block.Bytes[1] != 0x81 {
		t.Fatalf("%x", block.Bytes)
	}
	block.Bytes = slices.Delete(block.Bytes, at, at+len(field)+1)
	block.Bytes[2] -= byte(len(field) + 1)
	return pem.EncodeToMemory(block)
}

// TestAdoptGuesses imports files that say nothing, or FALSE, to emptyAuth, into a store with a
// PIN. Another password does not cast doubt on the PIN of the store.
func TestAdoptGuesses(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}))
	own := must[keystore.Version](t)(s.Create("own", keystore.ECDSAP256)).Key
	free := asOpenSSL()
	free.ObjectAttributes.NoDA = true
	for _, test := range []struct {
		what     string
		template tpm2.TPMTPublic
		password string
		says     bool // FALSE
		wrong    uint32
		word     string // of the error
	}{
		{"counted, nothing said, none", asOpenSSL(), "", false, 0, ""},
		{"counted, nothing said, the PIN", asOpenSSL(), "right", false, 1, ""},
		{"counted, FALSE, none", asOpenSSL(), "", true, 1, "its file says that it has a password"},
		{"nothing said, none", free, "", false, 0, ""},
		{"nothing said, the PIN", free, "right", false, 0, ""},
		{"nothing said, another", free, "other", false, 0, "it has a password"},
		{"FALSE, none", free, "", true, 0, ""},
		{"FALSE, the PIN", free, "right", true, 0, ""},
		{"FALSE, another", free, "other", true, 0, "it has a password"},
	} {
		text := keyFile(t, d, 0x81000001, test.template, test.password, false)
		if !test.says {
			text = unsaid(t, text)
		}
		before := lockoutCounter(t, d)
		v, err := s.ImportTSS2(test.what, keystore.ECDSAP256, text)
		if test.word != "" {
			says(t, test.what, err, keystore.ErrPIN, test.word)
		} else if err != nil {
			t.Errorf("%s: %v", test.what, err)
		} else {
			sign(t, v.Key)
		}
		if n := lockoutCounter(t, d) - before; n != test.wrong {
			t.Errorf("%s: %d wrong tries", test.what, n)
		}
		sign(t, own)
	}
}

// TestAdoptLastGuess leaves a TPM unlocked whose last try would be the second guess.
func TestAdoptLastGuess(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}))
	own := must[keystore.Version](t)(s.Create("own", keystore.ECDSAP256)).Key
	text := keyFile(t, d, 0x81000001, asOpenSSL(), "other", false)
	if _, err := s.ImportTSS2("key", keystore.ECDSAP256, text); lockoutCounter(t, d) != 1 { // of 3
		t.Fatal(err)
	}
	_, err := s.ImportTSS2("key", keystore.ECDSAP256, unsaid(t, text))
	says(t, "the second guess", err, keystore.ErrPIN, "one more wrong password would lock the TPM")
	if n := lockoutCounter(t, d); n != 2 {
		t.Errorf("%d wrong tries", n)
	}
	sign(t, own)
}

// TestAdoptLockedParent names a parent that has a password, and does not lock the TPM with it.
func TestAdoptLockedParent(t *testing.T) {
	s, _, _ := newStore(t)
	d := s.Device()
	text := keyFile(t, d, tpm2.TPMRHOwner, asOpenSSL(), "", true)
	f := must[*tpm.TSS2](t)(tpm.ParseTSS2(text))
	counting := ownerParent()
	counting.ObjectAttributes.NoDA = false
	for _, f.Parent = range []tpm2.TPMHandle{0x81000009, 0x8100000a} {
		parent := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(ownerParent()),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("other")}}}}
		if f.Parent == 0x8100000a {
			parent.InPublic = tpm2.New2B(counting)
		}
		persist(t, d, f.Parent, parent)
		_, err := s.ImportTSS2("key", keystore.ECDSAP256, must[[]byte](t)(f.PEM()))
		says(t, "a parent with a password", err, errors.ErrUnsupported, "parent has a password")
	}
	for lockoutCounter(t, d) < 2 { // of 3
		s.ImportTSS2("key", keystore.ECDSAP256, must[[]byte](t)(f.PEM()))
	}
	_, err := s.ImportTSS2("key", keystore.ECDSAP256, must[[]byte](t)(f.PEM()))
	says(t, "the last try", err, keystore.ErrPIN, "one more wrong password would lock the TPM")
	if n := lockoutCounter(t, d); n != 2 {
		t.Errorf("%d wrong tries", n)
	}
}
