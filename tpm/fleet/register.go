package fleet

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Reasons why a device cannot be registered under its name. Each comes in a
// [ConflictError].
var (
	// ErrRevoked: an operator revoked the entity, but not through the authority.
	ErrRevoked = errors.New("was revoked by an operator")
	// ErrRegistered: the entity is registered with keys that are not the device's.
	ErrRegistered = errors.New("is registered with other keys")
)

// A ConflictError reports a device whose name an operator has used for something else
// in the state of the server.
type ConflictError struct {
	Identity string // the name
	Err      error  // ErrRevoked or ErrRegistered
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("entity %s %v", safetext.String(e.Identity), e.Err)
}

// Unwrap returns ErrRevoked or ErrRegistered.
func (e *ConflictError) Unwrap() error { return e.Err }

// register registers a device as an entity: under its first key, and under the name in
// its certificates. It changes neither an entity of that name that is not the device's
// own, nor a revocation that this authority did not make.
func (a *Authority) register(ctx context.Context, i enroll.Identity) error {
	if len(i.Keys) == 0 {
		return fmt.Errorf("device %s has no keys", i.ID)
	}
	public := i.Keys[0].Public
	id, err := keystore.KeyID(public)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	if err := a.makeRoom(ctx, i); err != nil {
		return err
	}
	if err := a.dropPSK(ctx, i); err != nil {
		return err
	}
	return a.state.ReplaceEntity(state.EntityRecord{Identity: i.Name, Scheme: schemeOf(public), KeyID: id, PublicKey: der})
}

func schemeOf(public crypto.PublicKey) string {
	if _, ok := public.(*ecdsa.PublicKey); ok {
		return "ECC"
	}
	return "RSA"
}

// makeRoom undoes this authority's own revocation of a device's name, and checks that an
// entity registered under that name is the device's own.
func (a *Authority) makeRoom(ctx context.Context, i enroll.Identity) error {
	old, err := a.state.Entity(ctx, i.Name)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil
	case err != nil:
		return err
	case old.Revoked && !i.Withdrawn:
		return &ConflictError{i.Name, ErrRevoked}
	case !old.Revoked && !owns(i, old):
		return &ConflictError{i.Name, ErrRegistered}
	}
	if !i.Withdrawn {
		return nil // an operator's revocation of it stays
	}
	kept, err := a.state.RestoreEntities(i.Name, CertificateIdentity(i.Name))
	if errors.Is(err, state.ErrRevoked) {
		return &ConflictError{kept, ErrRevoked}
	}
	return err
}

// revoked reports whether a name of a device is revoked, as an entity with a key or with a
// certificate.
func (a *Authority) revoked(ctx context.Context, name string) (bool, error) {
	for _, identity := range []string{name, CertificateIdentity(name)} {
		e, err := a.state.Entity(ctx, identity)
		if err != nil && !errors.Is(err, keystore.ErrNotFound) {
			return false, err
		}
		if err == nil && e.Revoked {
			return true, nil
		}
	}
	return false, nil
}

// owns reports whether an entity is registered with a key of the device.
func owns(i enroll.Identity, e *msl.Entity) bool {
	return slices.ContainsFunc(slices.Concat(i.Keys, i.Former), func(k enroll.IdentityKey) bool {
		return keystore.SamePublic(k.Public, e.PublicKey)
	})
}

// dropPSK removes pre-shared keys that were imported into a different TPM than the one
// that now has the name.
func (a *Authority) dropPSK(ctx context.Context, i enroll.Identity) error {
	e, err := a.state.Record(ctx, PSKIdentity(i.Name))
	switch {
	case errors.Is(err, state.ErrUnknown):
		return nil
	case err == nil && e.PSK != nil && e.Created.Before(i.Since.Truncate(time.Second)):
		return a.state.RemoveEntity(e.Identity)
	}
	return err
}

// withdraw revokes the identities of a device, unless its name now belongs to another
// device.
func (a *Authority) withdraw(ctx context.Context, i enroll.Identity) error {
	e, err := a.state.Entity(ctx, i.Name)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	if err == nil && !e.Revoked && !owns(i, e) {
		return nil
	}
	err = errors.Join(a.state.WithdrawEntity(i.Name), a.state.WithdrawEntity(CertificateIdentity(i.Name)))
	psk := PSKIdentity(i.Name)
	if e, errPSK := a.state.Entity(ctx, psk); errPSK == nil && e.PSK != nil {
		err = errors.Join(err, a.state.WithdrawEntity(psk))
	}
	return err
}
