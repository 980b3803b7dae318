package tpm_test

import (
	"errors"
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
