package identity

import (
	"cmp"
	"crypto"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// ekInfo says how to make a kind of EK, and where a TPM keeps it and related data.
// Indices that are 0 do not exist.
type ekInfo struct {
	kind        EKKind
	certificate tpm2.TPMHandle // NV index
	nonce       tpm2.TPMHandle // NV index
	stored      tpm2.TPMHandle // NV index of a template that replaces the usual one
	persistent  tpm2.TPMHandle // where a manufacturer may have put the key
	template    tpm2.TPMTPublic
}

// ekInfos are the kinds of EK, most common first (TCG EK Credential Profile).
func ekInfos() []ekInfo {
	return []ekInfo{
		{EKRSA2048, 0x01c00002, 0x01c00003, 0x01c00004, 0x81010001, tpm2.RSAEKTemplate},
		{EKP256, 0x01c0000a, 0x01c0000b, 0x01c0000c, 0x81010002, tpm2.ECCEKTemplate},
		{EKP384, 0x01c00016, 0, 0x01c00017, 0x81010016, highECC(tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, 256)},
		{EKRSA3072, 0x01c0001c, 0, 0x01c0001d, 0x8101001c, highRSA(3072, tpm2.TPMAlgSHA384, 256)},
		{EKP521, 0x01c00018, 0, 0x01c00019, 0x81010018, highECC(tpm2.TPMECCNistP521, tpm2.TPMAlgSHA512, 256)},
		{EKRSA2048High, 0x01c00012, 0, 0x01c00013, 0x81010012, highRSA(2048, tpm2.TPMAlgSHA256, 128)},
		{EKP256High, 0x01c00014, 0, 0x01c00015, 0x81010014, highECC(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, 128)},
	}
}

// EKKinds are the kinds of EK that a device can use, if its TPM has them.
func EKKinds() (kinds []EKKind) {
	for _, e := range ekInfos() {
		kinds = append(kinds, e.kind)
	}
	return kinds
}

func ekInfoOf(kind EKKind) (ekInfo, error) {
	for _, e := range ekInfos() {
		if e.kind == kind {
			return e, nil
		}
	}
	return ekInfo{}, fmt.Errorf("enroll: unknown kind of EK %q: want one of %v", kind, EKKinds())
}

// highRSA and highECC are the templates of the high range: the policy is PolicyB, and the
// unique field is empty.
func highRSA(bits uint16, hash tpm2.TPMAlgID, aes uint16) tpm2.TPMTPublic {
	t := highRange(tpm2.TPMAlgRSA, hash)
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aesCFB(aes), KeyBits: tpm2.TPMKeyBits(bits)})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return t
}

func highECC(curve tpm2.TPMECCCurve, hash tpm2.TPMAlgID, aes uint16) tpm2.TPMTPublic {
	t := highRange(tpm2.TPMAlgECC, hash)
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aesCFB(aes), CurveID: curve})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

func highRange(kind, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	t := tpm2.TPMTPublic{Type: kind, NameAlg: hash, ObjectAttributes: tpm2.RSAEKTemplate.ObjectAttributes}
	t.ObjectAttributes.UserWithAuth = true
	t.AuthPolicy = tpm2.TPM2BDigest{Buffer: policyB(hash)}
	return t
}

func aesCFB(bits uint16) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(bits)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// policyA is PolicySecret of the endorsement hierarchy (TCG EK Credential Profile;
// TPM 2.0 Library, Part 3, clause 23.4).
func policyA(hash tpm2.TPMAlgID) []byte {
	return digest(hash, digest(hash, make([]byte, sizeOf(hash)), []byte{0, 0, 1, 0x51}, []byte{0x40, 0, 0, 0x0b}))
}

// policyB is PolicyA or PolicyC (section B.6.4; Part 3, clause 23.6).
func policyB(hash tpm2.TPMAlgID) []byte {
	return digest(hash, make([]byte, sizeOf(hash)), []byte{0, 0, 1, 0x71}, policyA(hash), policyC(hash))
}

// policyC is PolicyAuthorizeNV of an index of the owner (section B.6.3).
func policyC(hash tpm2.TPMAlgID) []byte {
	b, _ := hex.DecodeString(map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde",
		tpm2.TPMAlgSHA384: "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165",
		tpm2.TPMAlgSHA512: "589ee1e146544716e8deafe6db247b01b81e9f9c7dd16b814aa159138749105fba5388dd1dea702f35240c184933121e2c61b8f50d3ef91393a49a38c3f73fc8",
	}[hash])
	return b
}

// digest hashes the parts, or returns nil for a hash that no EK has.
func digest(hash tpm2.TPMAlgID, parts ...[]byte) []byte {
	h, err := hash.Hash()
	if err != nil || !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, h) {
		return nil
	}
	sum := h.New()
	for _, p := range parts {
		sum.Write(p)
	}
	return sum.Sum(nil)
}

func sizeOf(hash tpm2.TPMAlgID) int { return len(digest(hash)) }

// chooseEK returns the first kind that has a certificate, one that can be read if there is
// any, else the usual one.
func chooseEK(t transport.TPM, usual EKKind) (kind EKKind, err error) {
	for _, e := range ekInfos() {
		list, _, err := e.certificates(t)
		if err != nil {
			return "", err
		}
		if len(list) == 0 {
			continue
		}
		if c, err := proof.ParseCertificate(list[0]); err == nil && proof.KindOf(c.PublicKey) != "" {
			return e.kind, nil
		}
		kind = cmp.Or(kind, e.kind)
	}
	return cmp.Or(kind, usual), nil
}

// ekSession makes a session that satisfies the policy of an EK.
func ekSession(t transport.TPM, area *tpm2.TPMTPublic) (tpm2.Session, func() error, error) {
	isA := slices.Equal(area.AuthPolicy.Buffer, policyA(area.NameAlg))
	isB := slices.Equal(area.AuthPolicy.Buffer, policyB(area.NameAlg))
	switch {
	case !isA && !isB && area.ObjectAttributes.UserWithAuth:
		return tpm2.PasswordAuth(nil), func() error { return nil }, nil
	case !isA && !isB:
		return nil, nil, fmt.Errorf("enroll: the EK has a policy that is not in the TCG EK Credential Profile: use another kind")
	}
	s, end, err := tpm2.PolicySession(t, area.NameAlg, 16)
	if err != nil {
		return nil, nil, tpm.CommandError("TPM2_StartAuthSession", err)
	}
	if err := satisfy(t, s, area.NameAlg, isB); err != nil {
		end()
		return nil, nil, err
	}
	return s, end, nil
}

func satisfy(t transport.TPM, s tpm2.Session, hash tpm2.TPMAlgID, isB bool) error {
	endorsement, err := tpm.Hierarchy(t, tpm2.TPMRHEndorsement)
	if err != nil {
		return err
	}
	_, err = tpm2.PolicySecret{AuthHandle: endorsement, PolicySession: s.Handle(), NonceTPM: s.NonceTPM()}.Execute(t)
	if err != nil {
		return tpm.HierarchyError("TPM2_PolicySecret", tpm2.TPMRHEndorsement, err)
	}
	if !isB {
		return nil
	}
	branches := tpm2.TPMLDigest{Digests: []tpm2.TPM2BDigest{{Buffer: policyA(hash)}, {Buffer: policyC(hash)}}}
	if _, err := (tpm2.PolicyOr{PolicySession: s.Handle(), PHashList: branches}).Execute(t); err != nil {
		return tpm.CommandError("TPM2_PolicyOR", err)
	}
	return nil
}
