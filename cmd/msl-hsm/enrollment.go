package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
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

// enrollmentPolicy reads whom the operator lets in.
func enrollmentPolicy(e *enrollmentConfig) (p enroll.Policy, err error) {
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

// An authority enrolls devices, with the file of its records.
type authority struct {
	*fleet.Authority
	file *enroll.File
}

// openAuthority opens the records. With a key store it can issue certificates.
func openAuthority(c *config, state *bolt.Server, store keys) (*authority, error) {
	e := &c.Server.Enrollment
	if err := e.checkPath(); err != nil {
		return nil, err
	}
	policy, err := enrollmentPolicy(e)
	if err != nil {
		return nil, err
	}
	settings := enroll.Config{Policy: policy, Validity: e.Validity}
	if store != nil && e.CA != "" {
		if settings.Certificate, err = readCertificate("server.enrollment.ca", e.CA); err != nil {
			return nil, err
		}
		if settings.Key, err = signerOf(store, caKey(c), "make it with msl-hsm ca init"); err != nil {
			return nil, err
		}
	}
	a := &authority{}
	if a.file, err = enroll.OpenFile(e.State); err != nil {
		return nil, err
	}
	settings.Records = a.file
	if a.Authority, err = fleet.NewAuthority(state, settings); err != nil {
		return nil, errors.Join(err, a.file.Close())
	}
	return a, nil
}

// Close closes the records.
func (a *authority) Close() error { return a.file.Close() }

func caKey(c *config) string {
	if c.Server.Enrollment.CAKey != "" {
		return c.Server.Enrollment.CAKey
	}
	return keystore.RoleCA.Label(c.Keystore.Prefix)
}

func readCertificate(setting, path string) (*x509.Certificate, error) {
	all, err := readCertificates(setting, path)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// openEndpoint opens the place where devices enroll, beside the server.
func openEndpoint(c *config, s *service, log *slog.Logger, source func(*http.Request) string) (err error) {
	s.endpoint, err = fleet.NewEndpoint(s.devices.Authority, fleet.EndpointConfig{
		Name: s.msl.Name, Entity: s.msl.Entity,
		Limits: s.msl.Limits, Timeout: c.Server.Limits.Timeout, Source: source, Log: log,
		Refused: func(ctx context.Context, err error) {
			log.LogAttrs(ctx, slog.LevelInfo, "device not enrolled", slog.Any("error", afterConflict(err)))
		},
	})
	return err
}

// afterConflict adds the next step to the error of a device whose name is taken.
func afterConflict(err error) error {
	var conflict *fleet.ConflictError
	switch {
	case !errors.As(err, &conflict):
		return err
	case errors.Is(err, fleet.ErrRevoked):
		return fmt.Errorf("%w: run msl-hsm entity unrevoke %s if it may enroll", err, printable(conflict.Identity))
	}
	return fmt.Errorf("%w: give the device another name, or run msl-hsm entity remove %s", err, printable(conflict.Identity))
}
