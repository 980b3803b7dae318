package identity

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestEventLog enrolls a machine that was started otherwise than another, and names why.
func TestEventLog(t *testing.T) {
	events := []tpmtest.BootEvent{{PCR: 4, Type: 4, Data: "\x00\x00\x00\x00"}, {PCR: 4, Type: 0xd, Data: "linux init=/bin/sh"}}
	p := tpmtest.Start(t)
	chip := connect(t, p)
	measure(t, chip, events...)
	d := ready(t, chip, newPath(t))
	d.PCRs, d.EventLog = []uint{4}, tpmtest.EventLog(events...)
	reference := enroll.Reference{Events: []enroll.BootEvent{{PCR: 4, Digest: make([]byte, 32)}}}
	o := newOffice(t, enroll.Policy{
		PCRs: enroll.PCRRules{4: {make([]byte, 32)}}, EventLogs: true, References: []enroll.Reference{reference}, Allowed: map[enroll.ID]bool{idOf(t, d): true},
	})
	err := d.Enroll(t.Context(), o.exchange, nil)
	checkError(t, err, ErrPending)
	if !strings.Contains(err.Error(), "(event 1 is EV_SEPARATOR") {
		t.Error(err)
	}
	r := o.record(idOf(t, d))
	if l, err := r.BootLog(); err != nil || len(l.Events) != 2 || l.Events[1].Text != "linux init=/bin/sh" {
		t.Errorf("%v, %v", l, err)
	}
	nonce := make([]byte, 16)
	checkError(t, o.Approve(t.Context(), idOf(t, d), "", ""), nil)
	checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
	quote, err := d.Quote(nonce, d.PCRs)
	if err != nil {
		t.Fatal(err)
	}
	if log, err := enroll.QuotedLog(quote); err != nil || string(log) != string(d.EventLog) {
		t.Errorf("%d bytes, %v", len(log), err)
	}
}

// measure extends the PCRs of a TPM that is open.
func measure(t *testing.T, chip interface {
	Do(func(transport.TPM) error) error
}, events ...tpmtest.BootEvent) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) error {
		tpmtest.Measure(t, &commands{tp, nil}, events...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// commands is a connection whose commands go through an open TPM.
type commands struct {
	transport.TPM
	answer []byte
}

func (c *commands) Write(command []byte) (n int, err error) {
	c.answer, err = c.Send(command)
	return len(command), err
}

func (c *commands) Read(b []byte) (n int, err error) {
	n = copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

// TestEventLogNotWanted enrolls where an event log is not known, is not asked for, or is too
// long to be sent.
func TestEventLogNotWanted(t *testing.T) {
	chip := connect(t, tpmtest.Start(t))
	noise := make([]byte, 2*proof.MaxPackedLog)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, tt := range map[string]struct {
		older, asks bool
		log         []byte
	}{
		"older authority": {true, true, tpmtest.EventLog()}, "not asked for": {false, false, tpmtest.EventLog()}, "too long": {false, true, noise},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, enroll.Policy{Monitor: true, EventLogs: tt.asks})
			d := ready(t, chip, newPath(t))
			d.PCRs, d.EventLog = []uint{7}, tt.log
			var said []string
			exchange := func(ctx context.Context, request []byte) ([]byte, error) {
				if tt.older && strings.Contains(string(request), `"event_log"`) {
					return proof.ErrorResult("", ErrMalformed), nil
				}
				return o.exchange(ctx, request)
			}
			checkError(t, d.Enroll(t.Context(), exchange, func(what string) { said = append(said, what) }), nil)
			if told := strings.Contains(strings.Join(said, " "), "event log"); told != (name == "too long") {
				t.Error(said)
			}
		})
	}
}
