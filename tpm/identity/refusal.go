package identity

import (
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm"
)

// refusesAlways reports whether an error of a TPM is about what it was asked for: who may have
// it, and with what. It is the same at any other time, so that what was asked for can count as
// not there. Any other error tells something of the TPM at this time, such as that it is busy,
// locked, failed or not started, and nothing of what was asked for.
func refusesAlways(err error) bool {
	var password *tpm.PasswordError
	var guess *tpm.GuessError
	var rc tpm2.TPMRC
	return errors.As(err, &password) || errors.As(err, &guess) || errors.As(err, &rc) && (formatOne(rc) || slices.Contains(permanent(), rc))
}

// formatOne tells the codes about a parameter, a handle or a session (TPM 2.0 Library, Part 2,
// clause 6.6.2).
func formatOne(rc tpm2.TPMRC) bool { return rc <= 0xfff && rc&0x80 != 0 }

// permanent are the other codes that tell what an NV index is, who may use what, or that the
// TPM does not have a command (clause 6.6.3).
func permanent() []tpm2.TPMRC {
	return []tpm2.TPMRC{
		tpm2.TPMRCNVUninitialized, tpm2.TPMRCNVAuthorization, tpm2.TPMRCNVRange, tpm2.TPMRCNVSize, tpm2.TPMRCNVLocked,
		tpm2.TPMRCAuthType, tpm2.TPMRCAuthMissing, tpm2.TPMRCAuthUnavailable, tpm2.TPMRCPolicy, tpm2.TPMRCCommandCode,
	}
}
