package fleet

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A sinceTable records since when each identity belongs to its device. A name outlives
// the TPM that proves it: a device whose TPM was replaced keeps its name, and the old
// TPM still has tokens that name it. The zero value is empty.
type sinceTable struct {
	mu         sync.RWMutex
	byIdentity map[string]time.Time
}

// reasonCompromised is keyCompromise (RFC 5280 section 5.3.1): an operator revoked the
// certificate without a replacement.
const reasonCompromised = 1

// learn updates the table from a record. A revoked certificate, and the tokens that
// were obtained with it, no longer identify the device: a token of the identity in
// certificates must be newer than the revocation.
func (s *sinceTable) learn(r enroll.Record) {
	if r.Registered == "" || r.Registered != r.Name {
		return
	}
	s.set(r.Name, r.Since)
	for _, c := range r.Certificates {
		if c.Name == r.Name && c.Revoked != nil && c.Revoked.Reason == reasonCompromised {
			s.set(CertificateIdentity(r.Name), c.Revoked.Time.Add(time.Second))
		}
	}
}

// set moves the time of an identity forward, never back.
func (s *sinceTable) set(identity string, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byIdentity == nil {
		s.byIdentity = map[string]time.Time{}
	}
	if since.After(s.byIdentity[identity]) {
		s.byIdentity[identity] = since
	}
}

// of returns the latest time that applies to any identity of the device.
func (s *sinceTable) of(identity string) (latest time.Time) {
	device := deviceName(identity)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, name := range []string{identity, device, strings.TrimSuffix(device, pskSuffix)} {
		if t := s.byIdentity[name]; t.After(latest) {
			latest = t
		}
	}
	return latest
}

// TokenJudge returns a function for JudgeToken of the server that uses this issuer. It
// refuses master tokens that were issued to a name before the name became the device's,
// and those obtained with a certificate that has been revoked since:
// msl.ErrMasterTokenIdentityRevoked. A token's time of issue follows from its times, to
// the second.
func (a *Authority) TokenJudge(issuer *msl.Issuer) func(ctx context.Context, identity string, t *msl.MasterToken) error {
	return func(_ context.Context, identity string, t *msl.MasterToken) error {
		if issuer.Issued(t).Before(a.since.of(identity).Truncate(time.Second)) {
			return msl.ErrMasterTokenIdentityRevoked
		}
		return nil
	}
}
