package identity

import (
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm"
)

// refusesAlways reports whether a TPM's error is about the request itself: who may make
// it, and for what. The result is the same at any other time, so the requested object can
// count as absent. Any other error describes the TPM at this time, for example that it is
// busy, locked, failed or not started, not the requested object.
func refusesAlways(err error) bool {
	var password *tpm.PasswordError
	var guess *tpm.GuessError
	var rc tpm2.TPMRC
	return errors.As(err, &password) || errors.As(err, &guess) || errors.As(err, &rc) && (formatOne(rc) || slices.Contains(permanent(), rc))
}

// formatOne reports whether a code is about a parameter, a handle or a session (TPM 2.0
// Library, Part 2, clause 6.6.2).
func formatOne(rc tpm2.TPMRC) bool { return rc <= 0xfff && rc&0x80 != 0 }

// permanent are the other codes that describe an NV index, a permission, or a missing
// command (clause 6.6.3).
func permanent() []tpm2.TPMRC {
	return []tpm2.TPMRC{
		tpm2.TPMRCNVUninitialized, tpm2.TPMRCNVAuthorization, tpm2.TPMRCNVRange, tpm2.TPMRCNVSize, tpm2.TPMRCNVLocked,
		tpm2.TPMRCAuthType, tpm2.TPMRCAuthMissing, tpm2.TPMRCAuthUnavailable, tpm2.TPMRCPolicy, tpm2.TPMRCCommandCode,
	}
}
