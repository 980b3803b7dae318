package identity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// ekInfo says how to make a kind of EK, and where a TPM keeps it and its certificate.
type ekInfo struct {
	kind        EKKind
	certificate tpm2.TPMHandle // NV index
	persistent  tpm2.TPMHandle // where a manufacturer may have put the key
	template    tpm2.TPMTPublic
}

func ekInfos() []ekInfo {
	return []ekInfo{
		{EKRSA2048, 0x01c00002, 0x81010001, tpm2.RSAEKTemplate},
		{EKP256, 0x01c0000a, 0x81010002, tpm2.ECCEKTemplate},
		{EKP384, 0x01c00016, 0x81010016, p384Template()},
	}
}

func ekInfoOf(kind EKKind) (ekInfo, error) {
	for _, e := range ekInfos() {
		if e.kind == kind {
			return e, nil
		}
	}
	return ekInfo{}, fmt.Errorf("enroll: there is no kind of EK %q: name %s, %s or %s", kind, EKRSA2048, EKP256, EKP384)
}

// The policies of EKs with SHA-384 (TCG EK Credential Profile, section B.6.3):
// PolicyB is PolicyA, PolicySecret of the endorsement hierarchy, or PolicyC.
const (
	policyA384 = "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53"
	policyB384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
	policyC384 = "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165"
)

func digest2B(digits string) tpm2.TPM2BDigest {
	b, _ := hex.DecodeString(digits)
	return tpm2.TPM2BDigest{Buffer: b}
}

func p384Template() tpm2.TPMTPublic {
	t := tpm2.ECCEKTemplate
	t.NameAlg = tpm2.TPMAlgSHA384
	t.ObjectAttributes.UserWithAuth = true
	t.AuthPolicy = digest2B(policyB384)
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

// chooseEK returns the first kind that has a certificate, else RSA.
func chooseEK(t transport.TPM) (EKKind, error) {
	for _, e := range ekInfos() {
		der, err := readNV(t, e.certificate)
		if err != nil {
			return "", err
		}
		if der != nil {
			return e.kind, nil
		}
	}
	return EKRSA2048, nil
}

// useEK gives f the EK and its public area: the persistent one of the manufacturer, or
// one that is made again, which is the same key as long as the TPM keeps its
// endorsement seed.
func useEK(t transport.TPM, kind EKKind, f func(tpm2.NamedHandle, []byte) error) error {
	e, err := ekInfoOf(kind)
	if err != nil {
		return err
	}
	if r, err := (tpm2.ReadPublic{ObjectHandle: e.persistent}).Execute(t); err == nil {
		if area, err := r.OutPublic.Contents(); err == nil && sameTemplate(area, e.template) {
			return f(tpm2.NamedHandle{Handle: e.persistent, Name: r.Name}, r.OutPublic.Bytes())
		}
	}
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(e.template)}.Execute(t)
	if err != nil {
		return tpm.CommandError("TPM2_CreatePrimary", err)
	}
	defer flush(t, r.ObjectHandle)
	return f(tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, r.OutPublic.Bytes())
}

// sameTemplate compares everything except the key itself.
func sameTemplate(area *tpm2.TPMTPublic, template tpm2.TPMTPublic) bool {
	template.Unique = area.Unique
	return area.Type == template.Type && bytes.Equal(tpm2.Marshal(*area), tpm2.Marshal(template))
}

// checkEK returns [ErrOtherTPM] if an EK is not that of the state file.
func checkEK(s *state, public []byte, path string) error {
	if !sameEK(s.EK.Public, public) {
		return proof.Fail(ErrOtherTPM, "%s", path)
	}
	return nil
}

func sameEK(a, b []byte) bool {
	x, err := proof.ParsePublic(a)
	y, err2 := proof.ParsePublic(b)
	return err == nil && err2 == nil && proof.SameKey(x.Key, y.Key)
}

// ekPolicy starts a session that satisfies the policy of an EK.
func ekPolicy(t transport.TPM, kind EKKind) (tpm2.Session, func() error, error) {
	hash := tpm2.TPMAlgSHA256
	if kind == EKP384 {
		hash = tpm2.TPMAlgSHA384
	}
	s, end, err := tpm2.PolicySession(t, hash, 16)
	if err != nil {
		return nil, nil, tpm.CommandError("TPM2_StartAuthSession", err)
	}
	_, err = tpm2.PolicySecret{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, PolicySession: s.Handle(),
		NonceTPM: s.NonceTPM(),
	}.Execute(t)
	if err != nil {
		return nil, nil, errors.Join(tpm.CommandError("TPM2_PolicySecret", err), end())
	}
	if kind == EKP384 {
		branches := tpm2.TPMLDigest{Digests: []tpm2.TPM2BDigest{digest2B(policyA384), digest2B(policyC384)}}
		if _, err := (tpm2.PolicyOr{PolicySession: s.Handle(), PHashList: branches}).Execute(t); err != nil {
			return nil, nil, errors.Join(tpm.CommandError("TPM2_PolicyOR", err), end())
		}
	}
	return s, end, nil
}

// readCertificates returns the certificate of an EK and the certificates above it that
// the manufacturer stored (TCG EK Credential Profile, section 2.2.1.5.2). There may be
// none.
func readCertificates(t transport.TPM, kind EKKind) ([][]byte, error) {
	e, err := ekInfoOf(kind)
	if err != nil {
		return nil, err
	}
	der, err := readNV(t, e.certificate)
	if err != nil || der == nil {
		return nil, err
	}
	list := splitCertificates(der, 1)
	const firstOfChain, lastOfChain = 0x01c00100, 0x01c001ff
	handles, err := nvHandles(t, firstOfChain, lastOfChain)
	if err != nil {
		return nil, err
	}
	for _, handle := range handles {
		rest, err := readNV(t, handle)
		if err != nil {
			return nil, err
		}
		list = append(list, splitCertificates(rest, proof.MaxCertificates-len(list))...)
	}
	return list, nil
}

func nvHandles(t transport.TPM, first, last uint32) (found []tpm2.TPMHandle, err error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: proof.MaxCertificates}.Execute(t)
	if err != nil {
		return nil, tpm.CommandError("TPM2_GetCapability", err)
	}
	list, err := r.CapabilityData.Data.Handles()
	if err != nil {
		return nil, fmt.Errorf("enroll: TPM2_GetCapability: %w", err)
	}
	for _, h := range list.Handle {
		if uint32(h) >= first && uint32(h) <= last {
			found = append(found, h)
		}
	}
	return found, nil
}

// splitCertificates splits concatenated certificates, and ignores what follows them:
// some manufacturers pad an index.
func splitCertificates(der []byte, most int) (list [][]byte) {
	for len(list) < most && len(der) > 4 && der[0] == 0x30 && der[1] == 0x82 { // a SEQUENCE of 256 bytes or more
		size := 4 + int(binary.BigEndian.Uint16(der[2:]))
		if size > len(der) || size > proof.MaxPart {
			break
		}
		list, der = append(list, der[:size]), der[size:]
	}
	return list
}

// readNV reads an NV index that needs no password, or returns nil if there is none.
func readNV(t transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	p, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		err = tpm.CommandError("TPM2_NV_ReadPublic", err)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	area, err := p.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("enroll: TPM2_NV_ReadPublic: %w", err)
	}
	return readNVData(t, tpm2.NamedHandle{Handle: index, Name: p.NVName}, int(area.DataSize))
}

func readNVData(t transport.TPM, index tpm2.NamedHandle, size int) ([]byte, error) {
	const step = 512 // bytes that every TPM returns in one response
	var data []byte
	for len(data) < size {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index.Handle, Name: index.Name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    index, Size: uint16(min(step, size-len(data))), Offset: uint16(len(data)),
		}.Execute(t)
		if err != nil {
			return nil, tpm.CommandError("TPM2_NV_Read", err)
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fmt.Errorf("enroll: TPM2_NV_Read: no data")
		}
		data = append(data, r.Data.Buffer...)
	}
	return data, nil
}
