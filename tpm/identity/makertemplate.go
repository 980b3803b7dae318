package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// makeAgain looks for a key that the manufacturer certified but did not make persistent, and that
// the TPM makes again from a template of the TCG. It returns nil if there is none. note gets a
// line for a key that the TPM does not make.
func makeAgain(t transport.TPM, restricted bool, certificates [][]byte, note func(string)) (*makerKey, error) {
	tried := map[string]bool{}
	for _, der := range certificates {
		c, err := proof.ParseCertificate(der)
		if err != nil || c.IsCA {
			continue
		}
		template, ok := makerTemplate(c.PublicKey, restricted)
		if !ok || tried[string(tpm2.Marshal(template))] {
			continue
		}
		tried[string(tpm2.Marshal(template))] = true
		k, err := madeAgain(t, template)
		switch {
		case refusesAlways(err):
			report(note, "the certificate of the device's maker is not used: "+err.Error())
		case err != nil:
			return nil, err
		case k.certify(certificates):
			return k, nil
		}
	}
	return nil, nil
}

// madeAgain makes the key of a template.
func madeAgain(t transport.TPM, template tpm2.TPMTPublic) (*makerKey, error) {
	k := &makerKey{template: &template}
	any := func(ek) bool { return true }
	_, err := useTemplate(t, template, any, func(made ek) (err error) {
		k.public, err = proof.ParsePublic(made.public)
		return err
	})
	return k, err
}

// makerTemplate is the template from which a manufacturer makes an IAK, which is restricted, or
// an IDevID with a kind of key: H-1 to H-4 (TCG TPM 2.0 Keys for Device Identity and
// Attestation), or what is made in the same way for RSA keys of 3072 bits. ok is false for other
// keys.
func makerTemplate(key crypto.PublicKey, restricted bool) (t tpm2.TPMTPublic, ok bool) {
	t = tpm2.TPMTPublic{ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, AdminWithPolicy: true, SignEncrypt: true, Restricted: restricted,
	}}
	unique := []byte("IDEVID")
	if restricted {
		unique = []byte("IAK")
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		t.Type, t.NameAlg = tpm2.TPMAlgRSA, map[int]tpm2.TPMAlgID{2048: tpm2.TPMAlgSHA256, 3072: tpm2.TPMAlgSHA384}[key.N.BitLen()]
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(key.N.BitLen()), Scheme: rsaScheme(t.NameAlg, restricted)})
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPM2BPublicKeyRSA{Buffer: unique})
	case *ecdsa.PublicKey:
		curve := map[int]tpm2.TPMECCCurve{256: tpm2.TPMECCNistP256, 384: tpm2.TPMECCNistP384, 521: tpm2.TPMECCNistP521}[key.Params().BitSize]
		t.Type, t.NameAlg = tpm2.TPMAlgECC, map[int]tpm2.TPMAlgID{256: tpm2.TPMAlgSHA256, 384: tpm2.TPMAlgSHA384, 521: tpm2.TPMAlgSHA512}[key.Params().BitSize]
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSECCParms{CurveID: curve, Scheme: tpm2.TPMTECCScheme{
			Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: t.NameAlg}),
		}})
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: unique}, Y: tpm2.TPM2BECCParameter{Buffer: unique}})
	}
	t.AuthPolicy.Buffer = makerPolicy(t.NameAlg, restricted)
	return t, t.NameAlg != 0
}

// rsaScheme is that of an IAK; an IDevID of RSA has none.
func rsaScheme(hash tpm2.TPMAlgID, restricted bool) tpm2.TPMTRSAScheme {
	if !restricted {
		return tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}
	}
	return tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})}
}

// makerPolicy is for whoever may change the key, and is part of its template.
func makerPolicy(hash tpm2.TPMAlgID, restricted bool) []byte {
	policies := map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea",
		tpm2.TPMAlgSHA384: "4db1aa836d0b5615df6ee53a40ef70c61c217f4303d44695925972bc927006cfa5cbdf6dc18c4dbe329b2f1542c3dd33",
		tpm2.TPMAlgSHA512: "7dd7500fd6c1b94f97a6af910da147301ef28f662fee06f225a4ccadda3b4e6b38e66b2f3ad5dee1a0503cd2daedb1e68cfe4f84b03a8cd22bb6a976f071a72f",
	}
	if restricted {
		policies = map[tpm2.TPMAlgID]string{
			tpm2.TPMAlgSHA256: "5437182326e414fca797d5f174615a1641f61255797c3a2b22c21d120b2d1e07",
			tpm2.TPMAlgSHA384: "129d94ebf84556652c6eef43bbb757512ac87e52be7b349ca6ce4d826f749fcf672f51716c5cbb605f313bf345aab312",
			tpm2.TPMAlgSHA512: "8060d1fb31716a29e48a6e5fece088bcfc1b278fc162255e81c3ecca3544cd4af94410c3715d561cccd9e39a6cb2646d43535bb54ea88710deb5f7836bd9b586",
		}
	}
	b, _ := hex.DecodeString(policies[hash])
	return b
}
