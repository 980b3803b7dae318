package proof

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// TestSchemes admits of a device's maker every scheme that signatures are checked for, and of an
// AK or LDevID the one that all authorities know.
func TestSchemes(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		scheme, hash, name tpm2.TPMAlgID
		ours, its          bool
	}{
		"RSASSA":          {tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA256, true, true},
		"RSASSA, SHA-384": {tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA256, false, true},
		"RSASSA, SHA-1":   {tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, false, false},
		"RSAPSS":          {tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA256, false, true},
		"RSAPSS, SHA-1":   {tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, false, false},
		"name of SHA-512": {tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA512, false, true},
		"name of SHA-1":   {tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA1, false, false},
		"none":            {tpm2.TPMAlgNull, tpm2.TPMAlgNull, tpm2.TPMAlgSHA256, false, false},
	} {
		area := rsaWith(tt.scheme, tt.hash)
		area.NameAlg = tt.name
		area.ObjectAttributes = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, SignEncrypt: true, Restricted: true}
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
		p, err := ParsePublic(tpm2.Marshal(area))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.digest(nil) == nil && tt.its {
			t.Errorf("%s: no digest", name)
		}
		none, err := rsa.SignPKCS1v15(nil, key, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if signature, _ := rsaOf(none, tt.scheme, tt.hash); checkTPMSignature(p, p.digest(nil), tpm2.Marshal(signature)) == nil {
			t.Errorf("%s: a signature of nothing", name)
		}
		if ak, maker := p.checkAK(), p.CheckMaker(); (ak == nil) != tt.ours || (maker == nil) != tt.its {
			t.Errorf("%s: %v, %v", name, ak, maker)
		}
		p.Area.ObjectAttributes.Restricted = false
		if err := p.checkKey(); (err == nil) != (tt.ours || name == "none") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
