package enroll

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Reference is the events of one device's start, with which those of others are
// compared.
type Reference struct {
	Device string      `json:"device"`
	Events []BootEvent `json:"events"`
}

// MaxReferences is the maximum size of a file of references, in bytes.
const MaxReferences = 16 << 20

type references struct {
	Type       string      `json:"type"`
	Version    int         `json:"version"`
	References []Reference `json:"references"`
}

const typeReferences = "boot events"

// EncodeReferences writes references as JSON.
func EncodeReferences(list []Reference) ([]byte, error) {
	text, err := json.MarshalIndent(references{typeReferences, proof.Version, list}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("enroll: references: %w", err)
	}
	return append(text, '\n'), nil
}

// ParseReferences reads what EncodeReferences wrote.
func ParseReferences(text []byte) ([]Reference, error) {
	var r references
	if len(text) > MaxReferences || json.Unmarshal(text, &r) != nil || r.Type != typeReferences {
		return nil, fmt.Errorf("enroll: these are not boot events of a reference device")
	}
	if r.Version != proof.Version {
		return nil, fmt.Errorf("enroll: the boot events have version %d, but this program only reads version %d", r.Version, proof.Version)
	}
	return r.References, nil
}

// explainer is explain for data that a device sent.
func (p *Policy) explainer(packed []byte, q *proof.Quote) func(uint) string {
	if len(packed) == 0 || q == nil {
		return func(uint) string { return "" }
	}
	raw, err := proof.UnpackLog(packed)
	if err != nil {
		return func(uint) string { return " (" + reason(err) + ")" }
	}
	var values []PCR
	for _, v := range q.PCRs {
		values = append(values, PCR(v))
	}
	return p.explain(raw, values)
}

// explain returns a function that says, for a PCR whose value is not allowed, which event
// led to it. It reads the log on the first call.
func (p *Policy) explain(raw []byte, values []PCR) func(uint) string {
	if len(raw) == 0 {
		return func(uint) string { return "" }
	}
	read := sync.OnceValues(func() (BootLog, error) { return ReadBootLog(raw, values) })
	return func(index uint) string {
		l, err := read()
		if err != nil {
			return " (" + reason(err) + ")"
		}
		if slices.Contains(l.Astray, index) {
			return " (its event log does not lead to this value)"
		}
		return compared(of(l.Events, index), p.closest(l.Events, index))
	}
}

// closest returns the events of a PCR in the reference with the longest common start, or
// nil.
func (p *Policy) closest(events []BootEvent, index uint) (best []BootEvent) {
	own := of(events, index)
	for _, r := range p.References {
		if its := of(r.Events, index); best == nil || same(own, its) > same(own, best) {
			best = its
		}
	}
	return best
}

// same counts the events at the start that two lists have in common.
func same(a, b []BootEvent) (n int) {
	for n < len(a) && n < len(b) && bytes.Equal(a[n].Digest, b[n].Digest) {
		n++
	}
	return n
}

// compared names the first event that differs from the reference, if there is one.
func compared(own, reference []BootEvent) string {
	n := same(own, reference)
	switch {
	case len(reference) == 0:
		return ""
	case n < len(own) && n < len(reference):
		return fmt.Sprintf(" (event %d is %v, but %v in the reference)", n+1, own[n], reference[n])
	case n < len(own):
		return fmt.Sprintf(" (event %d, %v, is not in the reference)", n+1, own[n])
	case n < len(reference):
		return fmt.Sprintf(" (event %d of the reference, %v, is missing)", n+1, reference[n])
	}
	return " (its events match the reference, but this value is not allowed: learn both again)"
}
