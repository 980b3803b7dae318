package enroll

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// PCRRules are the allowed values of PCRs in the SHA-256 bank, by index: a device must
// quote each of these PCRs, and its value must be one of those listed. Nil means no
// rules.
type PCRRules map[uint][]HexBytes

// check says what is wrong with the state that a device proved, or returns "". explain
// adds what is known about the cause, for a PCR, and ask says how to make a device quote
// missing PCRs.
func (rules PCRRules) check(quote *proof.Quote, explain func(index uint) string, ask func(pcrs []string) string) string {
	var missing, wrong, why []string
	for _, i := range slices.Sorted(maps.Keys(rules)) {
		switch value := quoted(quote, i); {
		case value == nil:
			missing = append(missing, fmt.Sprint(i))
		case !rules.allow(i, value):
			wrong = append(wrong, fmt.Sprintf("PCR %d is %x%s", i, value, explain(i)))
		}
	}
	if len(wrong) > 0 {
		why = append(why, "it was started in a state that is not allowed: "+strings.Join(wrong, ", "))
	}
	if len(missing) > 0 {
		why = append(why, "it must prove the state in which it was started: "+ask(slices.Concat(quotedIndices(quote), missing)))
	}
	return strings.Join(why, "; ")
}

// These say how to make a device quote PCRs.
func byEnrolling(pcrs []string) string { return "enroll with --pcr " + strings.Join(pcrs, ",") }

func byQuoting(pcrs []string) string {
	return "quote again with --pcr " + strings.Join(pcrs, ",")
}

func byAttesting(pcrs []string) string {
	return "set client.attest.pcr to [" + strings.Join(pcrs, ", ") + "]"
}

// allow reports whether a PCR may have a value.
func (rules PCRRules) allow(index uint, value []byte) bool {
	values, ruled := rules[index]
	return !ruled || slices.ContainsFunc(values, func(v HexBytes) bool { return bytes.Equal(v, value) })
}

// disprove reports whether a device attested to a value that neither the rules allow nor
// a person approved. A value that it left out proves nothing: it could as well send nothing.
func (rules PCRRules) disprove(r *Record) bool {
	approved, err := r.PCRs()
	if err != nil || measurementOf(approved) != r.Measured {
		approved = nil
	}
	return slices.ContainsFunc(r.Attested.PCRs, func(v PCRValue) bool {
		return !rules.allow(v.Index, v.Digest) && !slices.ContainsFunc(approved, func(a PCR) bool {
			return a.Index == v.Index && bytes.Equal(a.Digest, v.Digest)
		})
	})
}

func quoted(q *proof.Quote, index uint) []byte {
	if q == nil {
		return nil
	}
	for _, p := range q.PCRs {
		if p.Index == index {
			return p.Digest
		}
	}
	return nil
}

func quotedIndices(q *proof.Quote) (all []string) {
	if q == nil {
		return nil
	}
	for _, p := range q.PCRs {
		all = append(all, fmt.Sprint(p.Index))
	}
	return all
}

// measurement is a digest of the state that a quote proves, or "" without a quote.
func measurement(q *proof.Quote) string {
	if q == nil {
		return ""
	}
	var list []PCR
	for _, v := range q.PCRs {
		list = append(list, PCR(v))
	}
	return measurementOf(list)
}

func measurementOf(list []PCR) string {
	if len(list) == 0 {
		return ""
	}
	h := sha256.New()
	for _, p := range list {
		fmt.Fprintf(h, "%d:%x\n", p.Index, p.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// PCRs returns the state that a device proved when it last enrolled or applied, if any.
// The values are those that its AK signed, as [Verifier.Verify] checks.
func (r *Record) PCRs() ([]PCR, error) {
	if r.Evidence == nil { // the device has not come yet
		return nil, nil
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil || p.Quote == nil {
		return nil, err
	}
	var list []PCR
	for _, v := range p.Quote.PCRs {
		list = append(list, PCR(v))
	}
	return list, nil
}

// measuredBy is the state of a waiting device, which a person sees and approves. A device
// that proved none must still do so: no approval replaces it.
func measuredBy(r *Record) string {
	if r.State != Pending && r.State != Refused || r.Evidence == nil {
		return r.Measured
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return r.Measured
	}
	return cmp.Or(measurement(p.Quote), r.Measured)
}

// Differences returns which values of PCRs the policy does not allow, or "". log is the
// event log that led to them, which may be empty.
func (p *Policy) Differences(values []PCR, log []byte) string {
	q := &proof.Quote{}
	for _, v := range values {
		q.PCRs = append(q.PCRs, proof.PCR(v))
	}
	return p.PCRs.check(q, p.explain(log, values), byQuoting)
}
