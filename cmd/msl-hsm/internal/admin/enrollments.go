package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// An EnrollmentChange is what an operator decides about a device.
type EnrollmentChange struct {
	Verb   string
	Device string // EK hash, or the start of one that is unique
	Other  string // EK hash
	Name   string
	Serial string
	Key    []byte // TPM Name
	Note   string
}

// An Enroller takes decisions of operators for a running server.
type Enroller struct{ A *keys.Authority }

// Apply carries a decision out.
func (e *Enroller) Apply(c EnrollmentChange, _ *struct{}) error {
	return decide(context.Background(), e.A.Authority, c)
}

// Records lists the records, as JSON.
func (e *Enroller) Records(_ struct{}, out *[]byte) error {
	all, err := e.A.List(context.Background())
	if err != nil {
		return err
	}
	*out, err = json.Marshal(all)
	return err
}

// CRL returns the revocation list, DER.
func (e *Enroller) CRL(_ struct{}, out *[]byte) (err error) {
	*out, err = e.A.CRL(context.Background())
	return err
}

// Certified checks what a device's AK certified.
func (e *Enroller) Certified(k fleet.CertifiedKey, _ *struct{}) error {
	return k.Check(context.Background(), e.A.Authority)
}

// decide carries a decision out.
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

// Enrollments are the records of devices: in their file or, while a server has
// it open, in that server.
type Enrollments interface {
	Apply(EnrollmentChange) error
	Records() ([]enroll.Record, error)
	CRL() ([]byte, error)
	Certified(fleet.CertifiedKey) error
	io.Closer
}

type localEnrollments struct {
	*keys.Authority
	also []io.Closer
}

func (l localEnrollments) Apply(c EnrollmentChange) error {
	return decide(context.Background(), l.Authority.Authority, c)
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

type remoteEnrollments struct{ *runningServer }

func (r remoteEnrollments) Apply(c EnrollmentChange) error {
	return fromAuthority(r.Call("Enroller.Apply", c, new(struct{})))
}

func (r remoteEnrollments) Records() (all []enroll.Record, err error) {
	var text []byte
	if err := fromAuthority(r.Call("Enroller.Records", struct{}{}, &text)); err != nil {
		return nil, err
	}
	return all, json.Unmarshal(text, &all)
}

func (r remoteEnrollments) CRL() (der []byte, err error) {
	err = fromAuthority(r.Call("Enroller.CRL", struct{}{}, &der))
	return der, err
}

func (r remoteEnrollments) Certified(k fleet.CertifiedKey) error {
	return fromAuthority(r.Call("Enroller.Certified", k, new(struct{})))
}

func fromAuthority(err error) error {
	return fromServer(err, enroll.ErrUnknown, enroll.ErrName, enroll.ErrState, enroll.ErrKey, enroll.ErrNonce, enroll.ErrAttestation, enroll.ErrSignature)
}

func OpenEnrollments(c *config.Config, signs bool) (Enrollments, error) {
	if c.Server.State != "" {
		if remote, err := DialServer(c.Server.State); remote != nil || err != nil {
			return remoteEnrollments{remote}, err
		}
	}
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	state, err := OpenState(c, "")
	if err != nil {
		return nil, err
	}
	l := localEnrollments{also: []io.Closer{state}}
	var store keys.Store
	if signs {
		if store, err = keys.Open(c); err != nil {
			return nil, errors.Join(err, state.Close())
		}
		l.also = append([]io.Closer{store}, l.also...)
	}
	if l.Authority, err = keys.OpenAuthority(c, state, store); err != nil {
		for _, open := range l.also {
			err = errors.Join(err, open.Close())
		}
		return nil, err
	}
	return l, nil
}
