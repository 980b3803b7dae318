package enroll

import (
	"bytes"
	"cmp"
	"crypto"
	"fmt"
	"slices"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// MaxEventLog is the largest event log in bytes.
const MaxEventLog = proof.MaxEventLog

// maxBootEvents is how many events a log may have: the longest logs of real machines have
// some hundred.
const maxBootEvents = 4096

// A BootEvent is an entry of an event log (TCG PC Client Platform Firmware Profile,
// section 10). Only the digest is proved, if the log leads to the value of a PCR. Type
// and text are the log's claims about it.
type BootEvent struct {
	PCR    uint     `json:"pcr"`
	Type   string   `json:"type"` // as EV_SEPARATOR
	Digest HexBytes `json:"digest"`
	Text   string   `json:"text,omitempty"` // of its data, where that can be shown
}

// String returns the parts that a person looks for.
func (e BootEvent) String() string {
	if e.Text == "" {
		return fmt.Sprintf("%s %.8s", e.Type, e.Digest)
	}
	return fmt.Sprintf("%s %q %.8s", e.Type, e.Text, e.Digest)
}

// A BootLog is what an event log says about the values of PCRs.
type BootLog struct {
	Events []BootEvent // that led to the values, in order
	Astray []uint      // PCRs whose values the log does not lead to
}

// ReadBootLog replays an event log, in the crypto-agile form with SHA-256, up to the
// values of PCRs, which must be known to come from a TPM. Data that is not an event log
// is [ErrEventLog].
func ReadBootLog(raw []byte, values []PCR) (l BootLog, err error) {
	defer func() {
		if trouble := recover(); trouble != nil { // in third-party parser code
			l, err = BootLog{}, proof.Fail(ErrEventLog, "%.100v", trouble)
		}
	}()
	if len(raw) > MaxEventLog {
		return l, proof.Fail(ErrEventLog, "it has %d bytes, more than the %d allowed", len(raw), MaxEventLog)
	}
	if raw, err = wholeLog(raw); err != nil {
		return l, err
	}
	log, err := tcg.ParseEventLog(raw, tcg.ParseOpts{})
	if err != nil {
		return l, proof.Fail(ErrEventLog, "%.200s", err)
	}
	return replay(log, values), nil
}

// replay checks one PCR at a time: a mismatch in one says nothing about the others.
func replay(log *tcg.EventLog, values []PCR) (l BootLog) {
	var all []tcg.Event
	for _, v := range values {
		pcr := register.PCR{Index: int(v.Index), Digest: v.Digest, DigestAlg: crypto.SHA256}
		events, err := log.Verify([]register.MR{pcr})
		if err != nil || len(events) == 0 && !untouched(v) {
			l.Astray = append(l.Astray, v.Index)
		}
		all = append(all, events...)
	}
	slices.SortStableFunc(all, func(a, b tcg.Event) int { return cmp.Compare(a.Num(), b.Num()) })
	for _, e := range all {
		l.Events = append(l.Events, BootEvent{PCR: uint(e.Index), Type: e.Type.TCGString(), Digest: e.Digest, Text: eventText(e)})
	}
	return l
}

// untouched reports whether a PCR has the value that it has before its first event (TCG PC
// Client Platform TPM Profile).
func untouched(v PCR) bool {
	return bytes.Count(v.Digest, []byte{0}) == len(v.Digest) || v.Index >= 17 && v.Index <= 22 && bytes.Count(v.Digest, []byte{0xff}) == len(v.Digest)
}

// of returns the events of a PCR.
func of(events []BootEvent, pcr uint) (some []BootEvent) {
	for _, e := range events {
		if e.PCR == pcr {
			some = append(some, e)
		}
	}
	return some
}

// BootLog returns the events of the start that a device proved when it last enrolled or
// applied. Without an event log it is empty.
func (r *Record) BootLog() (l BootLog, err error) {
	values, err := r.PCRs()
	if err != nil || r.Evidence == nil {
		return l, err
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil || len(p.EventLog) == 0 {
		return l, err
	}
	raw, err := proof.UnpackLog(p.EventLog)
	if err != nil {
		return l, err
	}
	return ReadBootLog(raw, values)
}
