package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// enrollmentConfig lets devices with a TPM enroll at the server. Without a state
// file they cannot.
type enrollmentConfig struct {
	State    string        `yaml:"state"`    // file of records
	Path     string        `yaml:"path"`     // of the URL
	CA       string        `yaml:"ca"`       // certificate file; empty: keys are only registered
	CAKey    string        `yaml:"ca-key"`   // its label in the key store
	Validity time.Duration `yaml:"validity"` // of certificates
	EKRoots  string        `yaml:"ek-roots"` // file of the manufacturers' certificates
	Allow    []string      `yaml:"allow"`    // EK hashes
	EKKinds  []string      `yaml:"ek-kinds"`
	Unknown  string        `yaml:"unknown"` // hold or refuse
	Monitor  bool          `yaml:"monitor"`
	Hold     bool          `yaml:"hold-changed"`
}

// checkPath wants a path of its own for the messages of newcomers.
func (e *enrollmentConfig) checkPath() error {
	if !strings.HasPrefix(e.Path, "/") || e.Path == "/" || strings.ContainsAny(e.Path, "{} ?#%") {
		return usagef("server.enrollment.path is %q: want a path as /enroll", e.Path)
	}
	return nil
}

// policy reads whom the operator lets in.
func (e *enrollmentConfig) policy() (p enroll.Policy, err error) {
	if e.EKRoots != "" {
		text, err := os.ReadFile(e.EKRoots)
		if err != nil {
			return p, usagef("server.enrollment.ek-roots: %w", err)
		}
		if p.Bundle, err = enroll.ParseBundle(text); err != nil {
			return p, usagef("server.enrollment.ek-roots: %s: %w", e.EKRoots, err)
		}
	}
	p.Allowed = map[enroll.ID]bool{}
	for _, text := range e.Allow {
		id, err := enroll.ParseID(text)
		if err != nil {
			return p, usagef("server.enrollment.allow: %w", err)
		}
		p.Allowed[id] = true
	}
	for _, kind := range e.EKKinds {
		k, err := ekKind("server.enrollment.ek-kinds", kind)
		if err != nil {
			return p, err
		}
		p.Kinds = append(p.Kinds, k)
	}
	switch e.Unknown {
	case "refuse":
		p.RefuseUnknown = true
	case "hold":
	default:
		return p, usagef("server.enrollment.unknown is %q: want hold or refuse", e.Unknown)
	}
	p.Monitor, p.HoldChanged = e.Monitor, e.Hold
	return p, nil
}

func ekKind(setting, name string) (enroll.EKKind, error) {
	switch k := enroll.EKKind(name); k {
	case enroll.EKRSA2048, enroll.EKP256, enroll.EKP384:
		return k, nil
	}
	return "", usagef("%s: unknown EK %q: want %s, %s or %s", setting, name, enroll.EKRSA2048, enroll.EKP256, enroll.EKP384)
}

// An authority enrolls devices, and registers them with the server.
type authority struct {
	*enroll.Authority
	file *enroll.File

	mu    sync.RWMutex
	since map[string]time.Time // by identity: see enroll.Record
}

// openAuthority opens the records. With a key store it can issue certificates.
func (c *config) openAuthority(state *bolt.Server, store keys) (*authority, error) {
	e := &c.Server.Enrollment
	if err := e.checkPath(); err != nil {
		return nil, err
	}
	policy, err := e.policy()
	if err != nil {
		return nil, err
	}
	a := &authority{since: map[string]time.Time{}}
	settings := enroll.Config{
		Policy: policy, Validity: e.Validity,
		Register: func(ctx context.Context, i enroll.Identity) error { return a.register(ctx, state, i) },
		Withdraw: func(ctx context.Context, i enroll.Identity) error { return a.withdraw(ctx, state, i) },
	}
	if store != nil && e.CA != "" {
		if settings.Certificate, err = readCertificate("server.enrollment.ca", e.CA); err != nil {
			return nil, err
		}
		if settings.Key, err = signerOf(store, c.caKey(), "make it with msl-hsm ca init"); err != nil {
			return nil, err
		}
	}
	if a.file, err = enroll.OpenFile(e.State); err != nil {
		return nil, err
	}
	settings.Records = a.file
	if a.Authority, err = enroll.NewAuthority(settings); err == nil {
		err = a.readSince()
	}
	if err != nil {
		return nil, errors.Join(err, a.file.Close())
	}
	return a, nil
}

// Close closes the records.
func (a *authority) Close() error { return a.file.Close() }

func (c *config) caKey() string {
	if c.Server.Enrollment.CAKey != "" {
		return c.Server.Enrollment.CAKey
	}
	return c.Keystore.Prefix + "-ca"
}

func readCertificate(setting, path string) (*x509.Certificate, error) {
	all, err := readCertificates(setting, path)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// register makes a device an entity: by its first key, and by the name in its
// certificates. What is registered by that name and is not its own is left alone,
// and so is a revocation that is not of this authority.
func (a *authority) register(ctx context.Context, s *bolt.Server, i enroll.Identity) error {
	if len(i.Keys) == 0 {
		return fmt.Errorf("device %s has no keys", i.ID)
	}
	public := i.Keys[0].Public
	id, err := keyIDOf(public)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	if err := a.makeRoom(ctx, s, i); err != nil {
		return err
	}
	if err := dropKeySet(s, i); err != nil {
		return err
	}
	a.setSince(i.Name, i.Since)
	return s.ReplaceEntity(state.EntityRecord{Identity: i.Name, Scheme: schemeOfPublic(public), KeyID: id, PublicKey: der})
}

// dropKeySet takes away pre-shared keys that went into another TPM than the one
// that has the name now.
func dropKeySet(state *bolt.Server, i enroll.Identity) error {
	all, err := state.Entities()
	for _, e := range all {
		if e.Identity == i.Name+pskSuffix && e.PSK != nil && e.Created.Before(i.Since.Truncate(time.Second)) {
			return state.RemoveEntity(e.Identity)
		}
	}
	return err
}

// makeRoom takes away what was registered for the device before, and what this
// authority revoked.
func (a *authority) makeRoom(ctx context.Context, s *bolt.Server, i enroll.Identity) error {
	old, err := s.Entity(ctx, i.Name)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil
	case err != nil:
		return err
	case old.Revoked && !i.Withdrawn:
		return fmt.Errorf("entity %s was revoked by an operator: run msl-hsm entity unrevoke %[1]s if it may enroll", printable(i.Name))
	case !old.Revoked && !ownsEntity(i, old):
		return fmt.Errorf("entity %s is registered with other keys: give the device another name, or run msl-hsm entity remove %[1]s", printable(i.Name))
	}
	for _, step := range []error{
		s.UnrevokeEntity(i.Name), s.UnrevokeEntity(nameInCertificate(i.Name)),
	} {
		if step != nil && !errors.Is(step, state.ErrUnknown) && !errors.Is(step, state.ErrNotRevoked) {
			return step
		}
	}
	return nil
}

// ownsEntity reports whether an entity is registered with a key of the device.
func ownsEntity(i enroll.Identity, e *msl.Entity) bool {
	return slices.ContainsFunc(slices.Concat(i.Keys, i.Former), func(k enroll.IdentityKey) bool {
		return sameKey(k.Public, e.PublicKey)
	})
}

func schemeOfPublic(public crypto.PublicKey) string {
	if _, ok := public.(*ecdsa.PublicKey); ok {
		return "ECC"
	}
	return "RSA"
}

// withdraw revokes a device, unless its name is another's by now.
func (a *authority) withdraw(ctx context.Context, state *bolt.Server, i enroll.Identity) error {
	e, err := state.Entity(ctx, i.Name)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	if err == nil && !e.Revoked && !ownsEntity(i, e) {
		return nil
	}
	err = errors.Join(state.RevokeEntity(i.Name), state.RevokeEntity(nameInCertificate(i.Name)))
	if psk, errPSK := state.Entity(ctx, i.Name+pskSuffix); errPSK == nil && psk.PSK != nil {
		err = errors.Join(err, state.RevokeEntity(i.Name+pskSuffix))
	}
	return err
}

// nameInCertificate is the identity that a device has by its certificate (RFC
// 2253).
func nameInCertificate(name string) string { return "CN=" + name }
