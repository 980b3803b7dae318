package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	devices "github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
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
	// Approve returns an error for each device, nil for those that are approved.
	Approve([]enroll.Approval) ([]error, error)
	Page(enroll.Query) (enroll.Page, error)
	// Find is [enroll.Authority.Find].
	Find(what string) ([]enroll.Record, error)
	CRL() ([]byte, error)
	Certified(fleet.CertifiedKey) error
	io.Closer
}

type localEnrollments struct {
	*keys.Authority
	c     *config.Config
	state *State
	// authentic checks, once, that the records are authentic.
	authentic func() error
}

func (l localEnrollments) Apply(c EnrollmentChange) error {
	return Tell(l.c, nil, "enrollment "+c.Verb, c.Device+c.Serial, decide(context.Background(), l.Authority.Authority, c))
}

func (l localEnrollments) Approve(list []enroll.Approval) ([]error, error) {
	return l.ApproveAll(context.Background(), list), nil
}

func (l localEnrollments) Page(q enroll.Query) (enroll.Page, error) {
	if err := l.authentic(); err != nil {
		return enroll.Page{}, err
	}
	return l.Authority.Page(context.Background(), q)
}

func (l localEnrollments) Find(what string) ([]enroll.Record, error) {
	if err := l.authentic(); err != nil {
		return nil, err
	}
	return l.Authority.Find(context.Background(), what)
}

func (l localEnrollments) CRL() ([]byte, error) {
	if err := l.authentic(); err != nil {
		return nil, err
	}
	return l.Authority.CRL(context.Background())
}

func (l localEnrollments) Certified(k fleet.CertifiedKey) error {
	if err := l.authentic(); err != nil {
		return err
	}
	return k.Check(context.Background(), l.Authority.Authority)
}

func (l localEnrollments) Close() error {
	return errors.Join(l.Authority.Close(), l.state.Close())
}

type remoteEnrollments struct{ *Running }

func (r remoteEnrollments) Apply(c EnrollmentChange) error {
	return r.call(http.MethodPost, "/enrollments", c, nil)
}

// maxApprovals is how many approvals one request has; that many with the longest names
// and notes are below the limit on its size.
const maxApprovals = 500

func (r remoteEnrollments) Approve(list []enroll.Approval) (errs []error, err error) {
	for some := range slices.Chunk(list, maxApprovals) {
		var problems []problem
		if err := r.callFor(longPatience, http.MethodPost, "/enrollments/approve", approvals{some}, &problems); err != nil {
			return errs, err
		}
		for _, p := range problems {
			errs = append(errs, p.errOrNil())
		}
	}
	return errs, nil
}

// approvals are those in a request.
type approvals struct {
	Devices []enroll.Approval `json:"devices"`
}

func (r remoteEnrollments) Page(q enroll.Query) (p enroll.Page, err error) {
	err = r.call(http.MethodPost, "/enrollments/page", q, &p)
	return p, err
}

func (r remoteEnrollments) Find(what string) (found []enroll.Record, err error) {
	err = r.call(http.MethodPost, "/enrollments/find", wanted{what}, &found)
	return found, err
}

// wanted is what identifies the requested device.
type wanted struct {
	Device string `json:"device"`
}

func (r remoteEnrollments) CRL() (der []byte, err error) {
	err = r.call(http.MethodGet, "/enrollments/crl", nil, &der)
	return der, err
}

func (r remoteEnrollments) Certified(k fleet.CertifiedKey) error {
	return r.call(http.MethodPost, "/enrollments/certified", k, nil)
}

// Enrollments connects to a running server, or opens the files if there is none.
// With signs set, it can sign a revocation list, which needs the key store.
func (r *Keys) Enrollments(signs bool) (Enrollments, error) {
	c := r.c
	if remote, err := dialFile(c); remote != nil || err != nil {
		return remoteEnrollments{remote}, err
	}
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	if err := FindState(c, ""); err != nil {
		return nil, err
	}
	state, err := r.openState()
	if err != nil {
		return nil, err
	}
	l := localEnrollments{c: c, state: state}
	var store keys.Store
	if signs {
		store, err = r.Store()
	}
	if err == nil {
		l.Authority, err = openDevices(c, state, store)
	}
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	l.authentic = sync.OnceValue(l.verify)
	return l, nil
}

// verify checks that records which others can write are authentic.
func (l localEnrollments) verify() error {
	if shared, ok := l.Records.(*devices.Records); ok {
		return shared.Verify(context.Background())
	}
	return nil
}
