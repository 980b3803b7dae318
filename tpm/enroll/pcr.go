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

// PCRRules are the values that PCRs of the SHA-256 bank may have, by their index: a device
// has to quote each of these, and its value has to be one of them. Nil means no rules.
type PCRRules map[uint][]HexBytes

// check tells what is wrong with the state that a device proved, or returns "". explain adds
// what is known of the cause, for a PCR.
func (rules PCRRules) check(quote *proof.Quote, explain func(index uint) string) string {
	if len(rules) == 0 {
		return ""
	}
	var missing, wrong []string
	for _, i := range slices.Sorted(maps.Keys(rules)) {
		switch value := quoted(quote, i); {
		case value == nil:
			missing = append(missing, fmt.Sprint(i))
		case !slices.ContainsFunc(rules[i], func(v HexBytes) bool { return bytes.Equal(v, value) }):
			wrong = append(wrong, fmt.Sprintf("PCR %d is %x%s", i, value, explain(i)))
		}
	}
	switch {
	case len(missing) > 0:
		return "it has to prove the state in which it was started: enroll with --pcr " + strings.Join(slices.Concat(quotedIndices(quote), missing), ",")
	case len(wrong) > 0:
		return "it was started in another state than those that are allowed: " + strings.Join(wrong, ", ")
	}
	return ""
}

// missing reports whether a PCR of the rules is not among the values.
func (rules PCRRules) missing(values []PCRValue) bool {
	for i := range rules {
		if !slices.ContainsFunc(values, func(v PCRValue) bool { return v.Index == i }) {
			return true
		}
	}
	return false
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

// measurement is a digest of the state that a quote proves, and empty without one.
func measurement(q *proof.Quote) string {
	if q == nil || len(q.PCRs) == 0 {
		return ""
	}
	h := sha256.New()
	for _, p := range q.PCRs {
		fmt.Fprintf(h, "%d:%x\n", p.Index, p.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// PCRs returns the state that a device proved when it last enrolled or applied, which may
// be nothing. The values are those that its AK signed, as [Verifier.Verify] checks.
func (r *Record) PCRs() ([]PCR, error) {
	if r.Evidence == nil {
		return nil, proof.Fail(ErrEvidence, "there is none for EK hash %s", r.ID)
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

// measured is the state of a device that waits, which a person sees and approves. One that
// proved none has to do that still: no approval stands for it.
func (r *Record) measured() string {
	if r.State != Pending && r.State != Refused || r.Evidence == nil {
		return r.Measured
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return r.Measured
	}
	return cmp.Or(measurement(p.Quote), r.Measured)
}

// Differences returns what the values of PCRs have that the policy does not allow, or "". log
// is the event log that led to them, which may be empty.
func (p *Policy) Differences(values []PCR, log []byte) string {
	q := &proof.Quote{}
	for _, v := range values {
		q.PCRs = append(q.PCRs, proof.PCR(v))
	}
	return p.PCRs.check(q, p.explain(log, values))
}
