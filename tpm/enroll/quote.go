package enroll

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
)

// signatureAlgorithm is what an LDevID signs requests with.
func signatureAlgorithm(key any) x509.SignatureAlgorithm {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return x509.ECDSAWithSHA256
	}
	return x509.SHA256WithRSA
}

const (
	typeQuote  = "quote"
	minNonce   = 16
	maxNonce   = 32
	numberPCRs = 24
)

// quoteEvidence is a quote that stands alone. Its qualifying data is the nonce,
// so that other tools can check it too.
type quoteEvidence struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	AK      []byte `json:"ak"` // TPMT_PUBLIC
	Nonce   []byte `json:"nonce"`
	Quote   quote  `json:"quote"`
}

// Quote lets the AK sign the values of PCRs, numbers 0 to 23 of the SHA-256
// bank, with a nonce of 16 to 32 bytes from whoever asks. The answer is JSON, for
// [VerifyQuote].
func (d *Device) Quote(nonce []byte, pcrs []uint) ([]byte, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if err := d.s.ready(); err != nil {
		return nil, err
	}
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return nil, fmt.Errorf("enroll: a nonce has %d to %d bytes", minNonce, maxNonce)
	}
	q, err := d.quote(nonce, pcrs)
	if err != nil {
		return nil, err
	}
	return encode(quoteEvidence{Type: typeQuote, Version: messageVersion, AK: d.s.AK.Public, Nonce: nonce, Quote: q}), nil
}

// A PCR is a register and its value.
type PCR struct {
	Index  uint
	Digest []byte // SHA-256
}

// VerifyQuote checks that the AK of an enrolled device quoted these PCRs for the
// nonce, and returns them.
func VerifyQuote(evidence []byte, r *Record, nonce []byte) ([]PCR, error) {
	q, err := parse[quoteEvidence](evidence, typeQuote)
	if err != nil {
		return nil, err
	}
	if r.State != Enrolled || r.Evidence == nil {
		return nil, fail(ErrState, "EK hash %s is %s", r.ID, r.State)
	}
	p, err := parse[proof](r.Evidence.Proof, typeProof)
	if err != nil {
		return nil, err
	}
	if string(p.Begin.AK) != string(q.AK) {
		return nil, fail(ErrKey, "the quote is of another AK than that of EK hash %s", r.ID)
	}
	ak, err := parsePublic(q.AK)
	if err != nil {
		return nil, err
	}
	if string(q.Nonce) != string(nonce) {
		return nil, fail(ErrNonce, "quote")
	}
	if err := checkQuote(ak, q.Quote, nonce); err != nil {
		return nil, err
	}
	var list []PCR
	for _, v := range q.Quote.PCRs {
		list = append(list, PCR(v))
	}
	return list, nil
}

// quote reads the registers until the values are those that were signed: they
// may change in between.
func (d *Device) quote(qualifying []byte, pcrs []uint) (q quote, err error) {
	for _, i := range pcrs {
		if i >= numberPCRs {
			return q, fmt.Errorf("enroll: there is no PCR %d", i)
		}
	}
	ak, err := parsePublic(d.s.AK.Public)
	if err != nil {
		return q, err
	}
	for range 5 {
		err = d.tpm.Do(func(t transport.TPM) (err error) {
			q, err = d.s.AK.quote(t, qualifying, pcrs)
			return err
		})
		if err == nil {
			err = checkQuote(ak, q, qualifying)
		}
		if !errors.Is(err, ErrAttestation) {
			break
		}
	}
	return q, err
}

func (b *blob) quote(t transport.TPM, qualifying []byte, pcrs []uint) (q quote, err error) {
	selection := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)},
	}}
	err = b.use(t, func(ak tpm2.NamedHandle) error {
		r, err := tpm2.Quote{
			SignHandle: authorised(ak), QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selection,
		}.Execute(t)
		if err != nil {
			return tpm.CommandError("TPM2_Quote", err)
		}
		q.Attest, q.Signature = r.Quoted.Bytes(), tpm2.Marshal(r.Signature)
		return nil
	})
	if err != nil {
		return q, err
	}
	selected, err := selectedPCRs(selection)
	if err != nil {
		return q, err
	}
	q.PCRs, err = readPCRs(t, selected)
	return q, err
}

// readPCRs reads one at a time: a TPM gives eight at most, and not always all.
func readPCRs(t transport.TPM, indices []uint) ([]pcrValue, error) {
	var values []pcrValue
	for _, i := range indices {
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(i)},
		}}}.Execute(t)
		if err != nil {
			return nil, tpm.CommandError("TPM2_PCR_Read", err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, fmt.Errorf("enroll: the TPM has no SHA-256 bank of PCRs")
		}
		values = append(values, pcrValue{Index: i, Digest: r.PCRValues.Digests[0].Buffer})
	}
	return values, nil
}
