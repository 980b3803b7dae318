package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// attested returns what a restricted key signed (TPM 2.0 Library, Part 2, clause
// 10.12.12). A restricted key does not sign outside data that starts with
// TPM_GENERATED_VALUE, the mark of data that the TPM itself produced.
func attested(ak Public, attest, signature []byte, kind tpm2.TPMST, qualifying []byte) (*tpm2.TPMSAttest, error) {
	if err := checkTPMSignature(ak, ak.digest(attest), signature); err != nil {
		return nil, err
	}
	if len(attest) < 6 || binary.BigEndian.Uint32(attest) != uint32(tpm2.TPMGeneratedValue) {
		return nil, Fail(ErrAttestation, "it was not made by a TPM")
	}
	if got := tpm2.TPMST(binary.BigEndian.Uint16(attest[4:])); got != kind {
		return nil, Fail(ErrAttestation, "it is of type %#x, not %#x", uint16(got), uint16(kind))
	}
	a, err := unmarshal[tpm2.TPMSAttest](attest)
	if err != nil {
		return nil, Fail(ErrAttestation, "%w", err)
	}
	if !bytes.Equal(a.ExtraData.Buffer, qualifying) {
		return nil, Fail(ErrNonce, "attestation")
	}
	return a, nil
}

// checkTPMSignature checks a TPMT_SIGNATURE (Part 2, clause 11.3.4), which has the scheme
// and the hash of its key.
func checkTPMSignature(p Public, digest, signature []byte) error {
	s, err := unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return Fail(ErrSignature, "%w", err)
	}
	scheme, hash := p.Signing()
	if digest == nil || s.SigAlg != scheme {
		return Fail(ErrSignature, "its scheme is not that of its key, or is not supported")
	}
	ok := false
	switch key := p.Key.(type) {
	case *ecdsa.PublicKey:
		if sig, err := s.Signature.ECDSA(); err == nil && sig.Hash == hash {
			r, s := new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)
			ok = ecdsa.Verify(key, digest, r, s)
		}
	case *rsa.PublicKey:
		ok = checkRSA(key, s, hash, digest)
	}
	if !ok {
		return Fail(ErrSignature, "the AK did not sign it")
	}
	return nil
}

// checkRSA checks one of RSA. A TPM chooses how long the salt of RSAPSS is (Part 1, clause B.7).
func checkRSA(key *rsa.PublicKey, s *tpm2.TPMTSignature, algorithm tpm2.TPMAlgID, digest []byte) bool {
	hash, err := algorithm.Hash()
	if err != nil {
		return false
	}
	if sig, err := s.Signature.RSASSA(); err == nil && s.SigAlg == tpm2.TPMAlgRSASSA {
		return sig.Hash == algorithm && rsa.VerifyPKCS1v15(key, hash, digest, sig.Sig.Buffer) == nil
	}
	sig, err := s.Signature.RSAPSS()
	return err == nil && sig.Hash == algorithm && rsa.VerifyPSS(key, hash, digest, sig.Sig.Buffer, nil) == nil
}

// CheckCertify checks that the AK certified a key of its TPM for some qualifying data.
func CheckCertify(ak, key Public, p KeyProof, qualifying []byte) error {
	a, err := attested(ak, p.Attest, p.Signature, tpm2.TPMSTAttestCertify, qualifying)
	if err != nil {
		return err
	}
	info, err := a.Attested.Certify()
	if err != nil {
		return Fail(ErrAttestation, "%w", err)
	}
	if !bytes.Equal(info.Name.Buffer, key.Name) {
		return Fail(ErrAttestation, "the AK certified another key")
	}
	return nil
}

// CheckQuote checks that the AK quoted these values of PCRs for some qualifying data.
func CheckQuote(ak Public, q Quote, qualifying []byte) error {
	a, err := attested(ak, q.Attest, q.Signature, tpm2.TPMSTAttestQuote, qualifying)
	if err != nil {
		return err
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return Fail(ErrAttestation, "%w", err)
	}
	selected, err := SelectedPCRs(info.PCRSelect)
	if err != nil {
		return err
	}
	h := sha256.New()
	for i, v := range q.PCRs {
		if i >= len(selected) || v.Index != selected[i] || len(v.Digest) != sha256.Size {
			return Fail(ErrAttestation, "the values do not match the quoted PCRs")
		}
		h.Write(v.Digest)
	}
	if len(q.PCRs) != len(selected) || !bytes.Equal(h.Sum(nil), info.PCRDigest.Buffer) {
		return Fail(ErrAttestation, "the quote is for other values")
	}
	return nil
}

// SelectedPCRs lists the PCRs of a selection from the SHA-256 bank.
func SelectedPCRs(l tpm2.TPMLPCRSelection) ([]uint, error) {
	if len(l.PCRSelections) != 1 || l.PCRSelections[0].Hash != tpm2.TPMAlgSHA256 {
		return nil, Fail(ErrAttestation, "the quote is not only of the SHA-256 bank")
	}
	var selected []uint
	for i, b := range l.PCRSelections[0].PCRSelect {
		for bit := range 8 {
			if b>>bit&1 == 1 {
				selected = append(selected, uint(8*i+bit))
			}
		}
	}
	return slices.Clip(selected), nil
}
