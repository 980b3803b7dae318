package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// quotes is a quote of these PCRs, each filled with a byte.
func (f *forger) quotes(qualifying []byte, pcrs map[uint]byte) *proof.Quote {
	f.t.Helper()
	var q proof.Quote
	var selected []uint
	h := sha256.New()
	for i := range uint(24) {
		if b, ok := pcrs[i]; ok {
			value := bytes.Repeat([]byte{b}, sha256.Size)
			selected = append(selected, i)
			h.Write(value)
			q.PCRs = append(q.PCRs, proof.PCR{Index: i, Digest: value})
		}
	}
	k := f.sign(tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: qualifying},
		ClockInfo: f.clock, FirmwareVersion: f.firmware,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(selected...)}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
		}),
	}))
	q.Attest, q.Signature = k.Attest, k.Signature
	return &q
}

// starts enrolls, or renews by a key, with these PCRs; without any it quotes none.
func (f *forger) starts(o *office, pcrs map[uint]byte, renews bool) error {
	f.t.Helper()
	b := f.begin()
	p := f.prove(b, f.ask(o, b))
	if pcrs != nil {
		p.Quote = f.quotes(p.Digest(proof.UseQuote), pcrs)
	}
	if renews {
		p.Renewal = f.renewal(&p, f.key)
	}
	_, err := o.Handle(f.t.Context(), proof.Encode(p))
	return err
}

func rules(pcrs map[uint][]byte) PCRRules {
	all := PCRRules{}
	for i, bs := range pcrs {
		for _, b := range bs {
			all[i] = append(all[i], bytes.Repeat([]byte{b}, sha256.Size))
		}
	}
	return all
}

// TestPCRs accepts what was started in an allowed state.
func TestPCRs(t *testing.T) {
	policy := Policy{Monitor: false, PCRs: rules(map[uint][]byte{0: {1, 2}, 7: {3}})}
	f := newForger(t)
	for name, c := range map[string]struct {
		pcrs   map[uint]byte
		refuse bool
		want   error
		why    string
	}{
		"allowed":                {map[uint]byte{0: 1, 7: 3}, false, nil, ""},
		"allowed, the other":     {map[uint]byte{0: 2, 7: 3}, true, nil, ""},
		"allowed, and more":      {map[uint]byte{0: 2, 4: 9, 7: 3}, false, nil, ""},
		"another":                {map[uint]byte{0: 3, 7: 3}, false, ErrPending, "it was started in a state that is not allowed: PCR 0 is 030303"},
		"both others":            {map[uint]byte{0: 3, 7: 4}, true, ErrPolicy, "PCR 7 is 0404"},
		"one is missing":         {map[uint]byte{0: 1}, false, ErrPending, "enroll with --pcr 0,7"},
		"no quote":               {nil, false, ErrPending, "enroll with --pcr 0,7"},
		"no quote, and no pity":  {nil, true, ErrPolicy, "enroll with --pcr 0,7"},
		"of the right one alone": {map[uint]byte{5: 1}, false, ErrPending, "enroll with --pcr 5,0,7"},
	} {
		t.Run(name, func(t *testing.T) {
			p := policy
			p.Allowed, p.RefuseUnknown = map[ID]bool{f.id(): true}, c.refuse
			o := newOffice(t, p, nil)
			err := f.starts(o, c.pcrs, false)
			checkError(t, err, c.want)
			if r := o.record(f.id()); err != nil && !strings.Contains(r.Waits, c.why) {
				t.Errorf("it waits because %s", r.Waits)
			}
			o.verify(nil)
		})
	}
}

// TestPCRsOfRenewal holds a device that was enrolled and leaves the allowed states, until a
// person approves just that state; the earlier keys stay enrolled.
func TestPCRsOfRenewal(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{0: {1}})}, nil)
	checkError(t, f.starts(o, map[uint]byte{0: 1}, false), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 1}, true), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 2}, true), ErrPending)
	if r := o.record(f.id()); len(r.current()) != 1 {
		t.Error("its keys are not in use any more")
	}
	checkError(t, o.Approve(context.Background(), f.id(), "", "a new firmware"), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 3}, true), ErrPending)
	checkError(t, o.Approve(context.Background(), f.id(), "", ""), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 3}, true), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 1}, true), nil)
	checkError(t, f.starts(o, map[uint]byte{0: 2}, true), ErrPending)
	r := o.record(f.id())
	values, err := r.PCRs()
	if err != nil || len(values) != 1 || values[0].Digest[0] != 2 {
		t.Errorf("%v, %v", values, err)
	}
	if text := o.policy.Differences(values, nil); !strings.Contains(text, "PCR 0 is 0202") {
		t.Error(text)
	}
}

// TestPCRsMonitored notes the state in which a device should not have been started.
func TestPCRsMonitored(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{Monitor: true, Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{0: {1}})}, nil)
	checkError(t, f.starts(o, map[uint]byte{0: 2}, false), nil)
	if r := o.record(f.id()); !strings.Contains(r.Accepted, "monitoring only: it was started in a state that is not allowed") {
		t.Errorf("%s", r.Accepted)
	}
}
