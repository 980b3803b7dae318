package identity

import (
	"context"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestAttest attests while another method is used, and to an authority that knows no
// attestations.
func TestAttest(t *testing.T) {
	p := tpmtest.Start(t)
	chip := connect(t, p)
	d := ready(t, chip, newPath(t))
	d.PCRs, d.EventLog = []uint{7}, tpmtest.EventLog()
	o := newOffice(t, enroll.Policy{Monitor: true, EventLogs: true})
	checkError(t, d.Attest(t.Context(), o.exchange), ErrNotEnrolled)
	checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
	messages := 0
	during := func(ctx context.Context, request []byte) ([]byte, error) {
		messages++
		if _, _, err := d.Credentials(); err != nil {
			t.Error(err)
		}
		return o.exchange(ctx, request)
	}
	checkError(t, d.Attest(t.Context(), during), nil)
	if r := o.record(idOf(t, d)); messages != 2 || r.Attested == nil || len(r.Attested.PCRs) != 1 {
		t.Errorf("%d messages, %+v", messages, r.Attested)
	}
	older := func(context.Context, []byte) ([]byte, error) { return proof.ErrorResult("", ErrMalformed), nil }
	checkError(t, d.Attest(t.Context(), older), ErrMalformed)
	checkError(t, o.RevokeDevice(t.Context(), idOf(t, d), ""), nil)
	checkError(t, d.Attest(t.Context(), o.exchange), ErrRevoked)
}
