package identity

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

const (
	minNonce   = 16
	maxNonce   = 32
	numberPCRs = 24
)

// Quote lets the AK sign the values of PCRs (0 to 23, of the SHA-256 bank), with a nonce
// of 16 to 32 bytes from the verifier. The event log of the Device is included. The
// result is JSON, for VerifyQuote of package enroll.
func (d *Device) Quote(nonce []byte, pcrs []uint) ([]byte, error) {
	k, err := d.readReady()
	if err != nil {
		return nil, err
	}
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return nil, fmt.Errorf("enroll: a nonce must be %d to %d bytes long: get a new one from whoever checks the quote", minNonce, maxNonce)
	}
	q, err := k.quote(nonce, pcrs)
	if err != nil {
		return nil, err
	}
	s := proof.StandaloneQuote{Type: proof.TypeQuote, Version: proof.Version, AK: k.file.state.AK.Public, Nonce: nonce, Quote: q}
	if len(d.EventLog) > 0 {
		s.EventLog, err = proof.PackLog(d.EventLog)
	}
	return proof.Encode(s), err
}

// quote repeats TPM2_Quote until the PCRs that it reads have the signed values: they may
// change in between.
func (k keyring) quote(qualifying []byte, pcrs []uint) (q proof.Quote, err error) {
	for _, i := range pcrs {
		if i >= numberPCRs {
			return q, fmt.Errorf("enroll: there is no PCR %d: name some of 0 to 23", i)
		}
	}
	ak, err := proof.ParsePublic(k.file.state.AK.Public)
	if err != nil {
		return q, err
	}
	for range 5 {
		err = k.do(func(t transport.TPM) (err error) {
			q, err = k.quoteOnce(t, qualifying, pcrs)
			return err
		})
		if err == nil {
			err = proof.CheckQuote(ak, q, qualifying)
		}
		if !errors.Is(err, ErrAttestation) {
			break
		}
	}
	return q, err
}

func (k keyring) quoteOnce(t transport.TPM, qualifying []byte, pcrs []uint) (q proof.Quote, err error) {
	selection := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)},
	}}
	err = k.use(t, *k.file.state.AK, func(ak tpm2.NamedHandle) error {
		r, err := tpm2.Quote{
			SignHandle: authorized(ak), QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
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
	selected, err := proof.SelectedPCRs(selection)
	if err != nil {
		return q, err
	}
	q.PCRs, err = readPCRs(t, selected)
	return q, err
}

// readPCRs reads one PCR at a time: a TPM returns at most eight in one response, or
// fewer.
func readPCRs(t transport.TPM, indices []uint) ([]proof.PCR, error) {
	var values []proof.PCR
	for _, i := range indices {
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(i)},
		}}}.Execute(t)
		if err != nil {
			return nil, tpm.CommandError("TPM2_PCR_Read", err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, errors.New("enroll: the TPM has no SHA-256 bank of PCRs: enable it in the firmware, or with " +
				"tpm2_pcrallocate sha256:all where the platform hierarchy is open, and restart the machine")
		}
		values = append(values, proof.PCR{Index: i, Digest: r.PCRValues.Digests[0].Buffer})
	}
	return values, nil
}
