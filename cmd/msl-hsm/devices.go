package main

import (
	"context"
	"crypto"
	"errors"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A name outlives what proves it: the device whose TPM was replaced goes on under
// it, and the old TPM still has tokens and certificates that name it. Both are
// judged here.

// readSince reads since when each identity is its device's. By a certificate that
// was revoked, and by what was had with it, a device is nobody: so a token of the
// identity in certificates must be newer than that.
func (a *authority) readSince() error {
	all, err := a.List(context.Background())
	for _, r := range all {
		if r.Registered == "" || r.Registered != r.Name {
			continue
		}
		a.setSince(r.Name, r.Since)
		for _, c := range r.Certificates {
			if c.Name == r.Name && c.Revoked != nil && c.Revoked.Reason == reasonCompromised {
				a.setSince(nameInCertificate(r.Name), c.Revoked.Time.Add(time.Second))
			}
		}
	}
	return err
}

// reasonCompromised is that of a person who revokes a key or a certificate (RFC
// 5280 section 5.3.1), in the place of which no other one was made.
const reasonCompromised = 1

func (a *authority) setSince(identity string, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if since.After(a.since[identity]) {
		a.since[identity] = since
	}
}

// tokenJudge refuses master tokens that were issued to a name before it was its
// device's. When a token was issued follows from its times, to the second.
func (a *authority) tokenJudge(issuer *msl.Issuer) func(identity string, t *msl.MasterToken) error {
	return func(identity string, t *msl.MasterToken) error {
		a.mu.RLock()
		name := strings.TrimSuffix(deviceName(identity), pskSuffix)
		since := later(a.since[name], later(a.since[deviceName(identity)], a.since[identity]))
		a.mu.RUnlock()
		if issuer.Issued(t).Before(since.Truncate(time.Second)) {
			return msl.ErrMasterTokenIdentityRevoked
		}
		return nil
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func nonzero(d, absent time.Duration) time.Duration {
	if d == 0 {
		return absent
	}
	return d
}

// deviceName is the name of a device in either of its identities.
func deviceName(identity string) string { return strings.TrimPrefix(identity, nameInCertificate("")) }

// deviceCertificates is the scheme X509 where devices enroll: of a certificate
// that names a device, the key must be one that the device has now.
type deviceCertificates struct {
	*entityauth.X509
	devices *authority
}

// Open judges the certificate, then the key.
func (d deviceCertificates) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	sender, release, err := d.X509.Open(ctx, authdata)
	if err != nil {
		return sender, release, err
	}
	if err := d.devices.checkCertified(ctx, sender); err != nil {
		release()
		return msl.Sender{}, nil, err
	}
	return sender, release, nil
}

func (a *authority) checkCertified(ctx context.Context, sender msl.Sender) error {
	verifies, _ := sender.Opener.(msl.VerifyKey)
	r, err := a.Named(ctx, deviceName(sender.Identity))
	switch {
	case errors.Is(err, enroll.ErrUnknown):
		return nil // it is not one of ours
	case err != nil:
		return msl.Failure(msl.ErrInternalException, "X509", err)
	case r.State == enroll.Rejected || r.State == enroll.Revoked:
		return msl.Failure(msl.ErrEntityRevoked, "X509", errors.New("the device is revoked"))
	}
	identity, err := r.Identity()
	if err != nil {
		return msl.Failure(msl.ErrInternalException, "X509", err)
	}
	for _, k := range identity.Keys {
		if k.Certificate != nil && sameKey(k.Public, verifies.Key) && !r.KeyRevoked(k.Name) {
			return nil
		}
	}
	return msl.Failure(msl.ErrEntityRevoked, "X509", errors.New("the certificate of this key is revoked, or another key took its place"))
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && key.Equal(b)
}
