package tpm_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestNeverStarted has a TPM that takes TPM2_Startup and says afterwards that it was not
// started: it is not asked for ever.
func TestNeverStarted(t *testing.T) {
	const initialize, enough = 0x100, 20
	asked := 0
	p := tpmtest.Start(t)
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		switch tpm2.TPMCC(tpmtest.Command(command)) {
		case tpm2.TPMCCStartup:
			return tpmtest.Refuse(0), nil
		case tpm2.TPMCCGetRandom:
			if asked++; asked == enough {
				return nil, errors.New("enough")
			}
			return tpmtest.Refuse(initialize), nil
		}
		return send(command)
	}), time.Minute))
	defer d.Close()
	err := d.Do(func(tp transport.TPM) error {
		_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tp)
		return err
	})
	if !errors.Is(err, tpm2.TPMRCInitialize) || asked >= enough {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// TestStartupRefused has a TPM that does not start: its answer is not said to be missing.
func TestStartupRefused(t *testing.T) {
	const initialize, failure = 0x100, 0x101
	p := tpmtest.Start(t)
	_, err := tpm.NewDevice(p.Quirky(func(command []byte, _ func([]byte) ([]byte, error)) ([]byte, error) {
		if tpm2.TPMCC(tpmtest.Command(command)) == tpm2.TPMCCStartup {
			return tpmtest.Refuse(failure), nil
		}
		return tpmtest.Refuse(initialize), nil
	}), time.Minute)
	if !errors.Is(err, tpm2.TPMRCFailure) || strings.Contains(err.Error(), "no answer") || !strings.Contains(err.Error(), "TPM2_Startup") {
		t.Error(err)
	}
}

// TestStartupLate has a TPM that was reset, and asks to repeat TPM2_Startup, or was started by
// another program in that moment.
func TestStartupLate(t *testing.T) {
	const initialize, retry = 0x100, 0x922
	for what, answers := range map[string][]uint32{"asks again": {retry, retry, 0}, "started by another": {initialize}} {
		down := false
		p := tpmtest.Start(t)
		d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			switch {
			case !down:
				return send(command)
			case tpm2.TPMCC(tpmtest.Command(command)) != tpm2.TPMCCStartup || len(answers) == 0:
				return tpmtest.Refuse(initialize), nil
			}
			answer := answers[0]
			answers = answers[1:]
			down = len(answers) > 0
			return tpmtest.Refuse(answer), nil
		}), time.Minute))
		defer d.Close()
		down = true
		err := d.Do(func(tp transport.TPM) error {
			_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tp)
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAnswerOfLinux has a kernel answer for a TPM that lacks a command.
func TestAnswerOfLinux(t *testing.T) {
	const missing = 11<<16 | 0x143
	p := tpmtest.Start(t)
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(tpmtest.RefuseCommand(uint32(tpm2.TPMCCGetRandom), missing)), time.Minute))
	defer d.Close()
	err := d.Do(func(tp transport.TPM) error {
		_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tp)
		return tpm.CommandError("TPM2_GetRandom", err)
	})
	says(t, "a missing command", err, errors.ErrUnsupported, "TPM_RC_COMMAND_CODE", "does not support")
}
