package proof

import (
	"time"

	"github.com/google/go-tpm/tpm2"
)

// A Clock says when a TPM signed something, by its own counters (TPM 2.0 Library, Part 2,
// clause 10.11.1), and the version of its firmware. Below the owner hierarchy, to which AKs
// belong, a TPM adds a constant of the signing key to all but Clock and Safe, so that only
// values of one AK can be compared.
type Clock struct {
	Clock    uint64 `json:"clock"`    // milliseconds
	Resets   uint32 `json:"resets"`   // starts that kept nothing
	Restarts uint32 `json:"restarts"` // starts that kept a state, since the last reset
	Safe     bool   `json:"safe"`     // Clock was never higher
	Firmware uint64 `json:"firmware"`
}

// ReadClock reads the clock in a TPMS_ATTEST. Its signature must have been checked.
func ReadClock(attest []byte) (Clock, error) {
	a, err := unmarshal[tpm2.TPMSAttest](attest)
	if err != nil {
		return Clock{}, Fail(ErrAttestation, "%w", err)
	}
	i := a.ClockInfo
	return Clock{i.Clock, i.ResetCount, i.RestartCount, bool(i.Safe), a.FirmwareVersion}, nil
}

// Behind reports whether a TPM signed at c before it signed at other, by more than some time
// within one start. Clock alone proves that only if it is safe: a TPM that loses its power
// without TPM2_Shutdown forgets up to an hour of it.
func (c Clock) Behind(other Clock, by time.Duration) bool {
	resets, restarts := int32(c.Resets-other.Resets), int32(c.Restarts-other.Restarts)
	back := c.Clock < other.Clock && other.Clock-c.Clock > uint64(by.Milliseconds())
	switch {
	case resets != 0:
		return resets < 0 || c.Safe && back
	case restarts != 0:
		return restarts < 0 || c.Safe && back
	}
	return back
}
