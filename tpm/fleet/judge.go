package fleet

import (
	"context"
	"slices"
	"strings"
	"time"
)

// CountSince is for the field of that name in msl.Server: the time, to the second, from which
// tokens of an identity count. A name outlives the TPM that proves it: a device whose TPM was
// replaced keeps its name, and the old TPM still has tokens that name it. A certificate revoked
// without a replacement no longer identifies the device, and neither do the tokens obtained
// with it: a token of the identity in certificates must be newer than that. Errors are those of
// the records.
func (a *Authority) CountSince(ctx context.Context, identity string) (latest time.Time, err error) {
	device := deviceName(identity)
	for _, name := range slices.Compact([]string{device, strings.TrimSuffix(device, pskSuffix)}) {
		s, err := a.Standing(ctx, name)
		if err != nil {
			return latest, err
		}
		if s.Since.After(latest) {
			latest = s.Since
		}
		if until := s.Compromised.Add(time.Second); identity == CertificateIdentity(name) && until.After(latest) {
			latest = until
		}
	}
	return latest.Truncate(time.Second), nil
}
