package enroll

import (
	"encoding/hex"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A PCR is a platform configuration register and its value.
type PCR struct {
	Index  uint
	Digest []byte // SHA-256
}

func parseQuote(evidence []byte) (proof.StandaloneQuote, error) {
	return proof.Parse[proof.StandaloneQuote](evidence, proof.TypeQuote)
}

// QuotedLog returns the event log sent with a quote, or nil. [ReadBootLog] checks whether
// it leads to the PCRs.
func QuotedLog(evidence []byte) ([]byte, error) {
	q, err := parseQuote(evidence)
	if err != nil || len(q.EventLog) == 0 {
		return nil, err
	}
	return proof.UnpackLog(q.EventLog)
}

// VerifyQuote checks evidence from Device.Quote of package identity: that the AK of the
// enrolled device quoted these PCRs for the nonce. It returns the PCRs.
func VerifyQuote(evidence []byte, r *Record, nonce []byte) ([]PCR, error) {
	q, err := parseQuote(evidence)
	if err != nil {
		return nil, err
	}
	if r.State != Enrolled || r.Evidence == nil {
		return nil, proof.Fail(ErrState, "EK hash %s is %s", r.ID, r.State)
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return nil, err
	}
	if string(p.Begin.AK) != string(q.AK) {
		return nil, proof.Fail(ErrKey, "the quote is by an AK other than that of EK hash %s", r.ID)
	}
	ak, err := proof.ParsePublic(q.AK)
	if err != nil {
		return nil, err
	}
	if string(q.Nonce) != string(nonce) {
		return nil, proof.Fail(ErrNonce, "the quote is for the nonce %s: have the device make a quote for %x", proof.Shorten(hex.EncodeToString(q.Nonce)), nonce)
	}
	if err := proof.CheckQuote(ak, q.Quote, nonce); err != nil {
		return nil, err
	}
	var list []PCR
	for _, v := range q.Quote.PCRs {
		list = append(list, PCR(v))
	}
	return list, nil
}
