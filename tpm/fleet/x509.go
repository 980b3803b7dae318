package fleet

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// X509 is the entity scheme X509 of a server at which devices enroll: if a certificate
// names a device, its key must be a current, unrevoked key of the device. Certificates
// that name no device are judged only by the embedded scheme.
type X509 struct {
	*entityauth.X509
	Authority *Authority
}

// Open judges the certificate, then the key. A revoked or rejected device, or a revoked
// or replaced key, is msl.ErrEntityRevoked.
func (x X509) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	sender, release, err := x.X509.Open(ctx, authdata)
	if err != nil {
		return sender, release, err
	}
	if err := x.Authority.checkCertified(ctx, sender); err != nil {
		release()
		return msl.Sender{}, nil, err
	}
	return sender, release, nil
}

func (a *Authority) checkCertified(ctx context.Context, sender msl.Sender) error {
	verifies, _ := sender.Opener.(msl.VerifyKey)
	r, err := a.Named(ctx, deviceName(sender.Identity))
	switch {
	case errors.Is(err, enroll.ErrUnknown):
		return nil // not a device of this authority
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
		if k.Certificate != nil && keystore.SamePublic(k.Public, verifies.Key) && !r.KeyRevoked(k.Name) {
			return nil
		}
	}
	return msl.Failure(msl.ErrEntityRevoked, "X509", errors.New("the certificate of this key is revoked, or it was replaced by another key"))
}
