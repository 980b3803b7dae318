package enroll

import (
	"bytes"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Clock says when a TPM signed something, by its own counters, and the version of its firmware.
type Clock = proof.Clock

// clockTolerance is by how much attestations may overtake each other.
const clockTolerance = 10 * time.Minute

// The changes of a TPM that are noted. They decide nothing: a machine may be put back on purpose.
const (
	wentBack        = "its TPM is in an earlier state than before: it was put back, for example with a snapshot of a virtual machine"
	changedFirmware = "its TPM has other firmware than before"
)

// lastClock returns when the AK of a device last signed something for its record, and false if it
// never did.
func lastClock(r *Record, ak []byte) (c Clock, ok bool) {
	if r.Evidence == nil {
		return c, false
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil || len(p.Keys) == 0 || !bytes.Equal(p.Begin.AK, ak) {
		return c, false
	}
	if r.Attested != nil && r.Attested.Clock != (Clock{}) {
		return r.Attested.Clock, true
	}
	c, err = proof.ReadClock(p.Keys[0].Attest)
	return c, err == nil
}

// changes says what has changed about the TPM of a device since it last signed something for
// its record, and when it did so now. The signature was checked before.
func changes(r *Record, ak, attest []byte) (now Clock, list []string) {
	now, err := proof.ReadClock(attest)
	before, ok := lastClock(r, ak)
	if err != nil || !ok {
		return now, nil
	}
	if now.Behind(before, clockTolerance) {
		list = append(list, wentBack)
	}
	if now.Firmware != before.Firmware {
		list = append(list, changedFirmware)
	}
	return now, list
}

// QuoteRemarks says what else evidence from Device.Quote of package identity shows about the TPM,
// compared with what it last signed for the record. [VerifyQuote] must have accepted it.
func QuoteRemarks(evidence []byte, r *Record) (list []string, err error) {
	q, err := parseQuote(evidence)
	if err != nil {
		return nil, err
	}
	now, err := proof.ReadClock(q.Quote.Attest)
	if err != nil {
		return nil, err
	}
	before, ok := lastClock(r, q.AK)
	if ok && now.Behind(before, 0) {
		list = append(list, "the quote is older than what the device last signed for this server, or its TPM was put back to an earlier state, for example with a snapshot of a virtual machine")
	}
	if ok && now.Firmware != before.Firmware {
		list = append(list, changedFirmware)
	}
	if !now.Safe {
		list = append(list, "the TPM lost its power without being shut down, and its clock some time")
	}
	return list, nil
}
