package exit

import (
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// TestNextSteps has what a person reads after an error of a device's identity.
func TestNextSteps(t *testing.T) {
	for err, want := range map[error]string{
		identity.ErrNotEnrolled: "enroll: device is not enrolled: run msl-hsm tpm enroll: more",
		identity.ErrOtherTPM:    "enroll: state file is of another TPM: if this TPM takes its place, run msl-hsm tpm init --replace: more",
		enroll.ErrKeyRevoked:    "enroll: key is revoked: run msl-hsm tpm init --new-keys and enroll again: more",
		enroll.ErrRejected:      "enroll: enrollment was rejected: more",
	} {
		if got := OneLine(fmt.Errorf("enroll: %w: more", err)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
