package enroll

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// TestAttestChanges notes that a TPM went back, or has other firmware, and decides nothing by that.
func TestAttestChanges(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{4: {1}})}, nil)
	checkError(t, f.starts(o, map[uint]byte{4: 1}, false), nil)
	hour := uint64(3600_000)
	for i, step := range []struct {
		clock    tpm2.TPMSClockInfo
		firmware uint64
		pcr      byte
		want     string // of its changes
	}{
		{tpm2.TPMSClockInfo{Clock: hour, ResetCount: 7, Safe: true}, 0, 1, ""}, // enrolled with a clock of 0
		{tpm2.TPMSClockInfo{Clock: 2 * hour, ResetCount: 8, Safe: true}, 0, 1, ""},
		{tpm2.TPMSClockInfo{Clock: 3 * hour, ResetCount: 7, Safe: true}, 0, 1, wentBack},
		{tpm2.TPMSClockInfo{Clock: 4 * hour, ResetCount: 7, Safe: true}, 0, 1, ""},
		{tpm2.TPMSClockInfo{Clock: 4 * hour, ResetCount: 8, Safe: true}, 5, 1, changedFirmware},
		{tpm2.TPMSClockInfo{Clock: 4 * hour, ResetCount: 8, Safe: true}, 5, 1, ""},
		{tpm2.TPMSClockInfo{Clock: 1 * hour, ResetCount: 8, Safe: true}, 6, 2, wentBack + "; " + changedFirmware},
	} {
		f.clock, f.firmware = step.clock, step.firmware
		before := o.record(f.id())
		_, d, err := o.Decide(t.Context(), proof.Encode(f.attestation(o, map[uint]byte{4: step.pcr})))
		checkError(t, err, map[byte]error{1: nil, 2: ErrPolicy}[step.pcr])
		r := o.record(f.id())
		said := strings.Join(r.Attested.Changes, "; ")
		if said != step.want || strings.Join(d.Changes, "; ") != said || r.State != Enrolled {
			t.Errorf("%d: %q, %q", i, said, d.Changes)
		}
		for _, e := range r.Log[len(before.Log):] {
			if !strings.Contains(step.want, e.What) && step.pcr == 1 {
				t.Errorf("%d: %q in its history", i, e.What)
			}
		}
		var text bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("a", "device", d)
		if strings.Contains(text.String(), "device.changes=") != (step.want != "") {
			t.Errorf("%d: %s", i, &text)
		}
	}
	checkError(t, f.attest(o, map[uint]byte{4: 1}), nil)
	checkError(t, o.RevokeDevice(t.Context(), f.id(), ""), nil)
	f.firmware = 9
	_, d, err := o.Decide(t.Context(), proof.Encode(f.attestation(o, map[uint]byte{4: 1})))
	checkError(t, err, ErrRevoked)
	if len(d.Changes) > 0 {
		t.Errorf("of an attestation that was not accepted: %q", d.Changes)
	}
}
