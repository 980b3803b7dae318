package fleet

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// since returns the time from which tokens of an identity count. A name outlives the TPM
// that proves it: a device whose TPM was replaced keeps its name, and the old TPM still
// has tokens that name it. A certificate revoked without a replacement no longer
// identifies the device, and neither do the tokens obtained with it: a token of the
// identity in certificates must be newer than that.
func (a *Authority) since(ctx context.Context, identity string) (latest time.Time, err error) {
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
	return latest, nil
}

// TokenJudge returns a function for JudgeToken of the server that uses this issuer. It
// refuses master tokens that were issued to a name before the name became the device's,
// and those obtained with a certificate that was revoked later:
// msl.ErrMasterTokenIdentityRevoked. Other errors are those of the records. A token's
// time of issue is computed from its times, to the second.
func (a *Authority) TokenJudge(issuer *msl.Issuer) func(ctx context.Context, identity string, t *msl.MasterToken) error {
	return func(ctx context.Context, identity string, t *msl.MasterToken) error {
		since, err := a.since(ctx, identity)
		if err == nil && issuer.Issued(t).Before(since.Truncate(time.Second)) {
			err = msl.ErrMasterTokenIdentityRevoked
		}
		return err
	}
}
