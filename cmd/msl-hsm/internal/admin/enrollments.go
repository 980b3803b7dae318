package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// An EnrollmentChange is an operator's decision about a device.
type EnrollmentChange struct {
	Verb   string
	Device string // EK hash, or a unique prefix of one
	Other  string // EK hash
	Name   string
	Serial string
	Key    []byte // TPM Name
	Note   string
}

// decide carries out a decision.
func decide(ctx context.Context, a *fleet.Authority, c EnrollmentChange) error {
	if c.Verb == "revoke certificate" {
		return a.RevokeCertificate(ctx, c.Serial, c.Note)
	}
	id, err := enroll.ParseID(c.Device)
	if err != nil {
		return err
	}
	switch c.Verb {
	case "approve":
		return a.Approve(ctx, id, c.Name, c.Note)
	case "reject":
		return a.Reject(ctx, id, c.Note)
	case "revoke":
		return a.RevokeDevice(ctx, id, c.Note)
	case "revoke key":
		return a.RevokeKey(ctx, id, c.Key, c.Note)
	case "reinstate":
		return a.Reinstate(ctx, id, c.Note)
	case "remove":
		return a.Remove(ctx, id)
	case "merge":
		next, err := enroll.ParseID(c.Other)
		if err != nil {
			return err
		}
		return a.Merge(ctx, id, next, c.Note)
	}
	return fmt.Errorf("the server does not know how to %s: it runs another version", c.Verb)
}

// Enrollments gives access to the records of devices: in their file or, while a server
// has it open, through that server.
type Enrollments interface {
	Apply(EnrollmentChange) error
	Records() ([]enroll.Record, error)
	CRL() ([]byte, error)
	Certified(fleet.CertifiedKey) error
	io.Closer
}

type localEnrollments struct {
	*keys.Authority
	c    *config.Config
	also []io.Closer
}

func (l localEnrollments) Apply(c EnrollmentChange) error {
	return Tell(l.c, nil, "enrollment "+c.Verb, c.Device+c.Serial, decide(context.Background(), l.Authority.Authority, c))
}

func (l localEnrollments) Records() ([]enroll.Record, error) { return l.List(context.Background()) }

func (l localEnrollments) CRL() ([]byte, error) { return l.Authority.CRL(context.Background()) }

func (l localEnrollments) Certified(k fleet.CertifiedKey) error {
	return k.Check(context.Background(), l.Authority.Authority)
}

func (l localEnrollments) Close() error {
	errs := []error{l.Authority.Close()}
	for _, c := range l.also {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

type remoteEnrollments struct{ *Running }

func (r remoteEnrollments) Apply(c EnrollmentChange) error {
	return r.call(http.MethodPost, "/enrollments", c, nil)
}

func (r remoteEnrollments) Records() (all []enroll.Record, err error) {
	err = r.call(http.MethodGet, "/enrollments", nil, &all)
	return all, err
}

func (r remoteEnrollments) CRL() (der []byte, err error) {
	err = r.call(http.MethodGet, "/enrollments/crl", nil, &der)
	return der, err
}

func (r remoteEnrollments) Certified(k fleet.CertifiedKey) error {
	return r.call(http.MethodPost, "/enrollments/certified", k, nil)
}

// OpenEnrollments connects to a running server, or opens the files if there is none.
// With signs set, it can sign a revocation list, which needs the key store.
func OpenEnrollments(c *config.Config, signs bool) (Enrollments, error) {
	if remote, err := dialFile(c); remote != nil || err != nil {
		return remoteEnrollments{remote}, err
	}
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	state, err := OpenState(c, "")
	if err != nil {
		return nil, err
	}
	l := localEnrollments{c: c, also: []io.Closer{state}}
	var store keys.Store
	if signs {
		if store, err = keys.Open(c); err != nil {
			return nil, errors.Join(err, state.Close())
		}
		l.also = append([]io.Closer{store}, l.also...)
	}
	if l.Authority, err = keys.OpenAuthority(c, state.Server, store); err != nil {
		for _, open := range l.also {
			err = errors.Join(err, open.Close())
		}
		return nil, err
	}
	return l, nil
}
