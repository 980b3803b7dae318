package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
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
type Enroller struct{ a *authority }

// Apply carries a decision out.
func (e *Enroller) Apply(c EnrollmentChange, _ *struct{}) error {
	return errors.Join(decide(context.Background(), e.a.Authority, c), e.a.readSince())
}

// Records lists the records, as JSON.
func (e *Enroller) Records(_ struct{}, out *[]byte) error {
	all, err := e.a.List(context.Background())
	if err != nil {
		return err
	}
	*out, err = json.Marshal(all)
	return err
}

// CRL returns the revocation list, DER.
func (e *Enroller) CRL(_ struct{}, out *[]byte) (err error) {
	*out, err = e.a.CRL(context.Background())
	return err
}

// A CertifiedKey is a storage key for which the AK of a device vouches.
type CertifiedKey struct {
	Device                                string // name
	Public, Attest, Signature, Qualifying []byte
}

// Certified checks what a device's AK certified.
func (e *Enroller) Certified(k CertifiedKey, _ *struct{}) error { return k.check(e.a.Authority) }

func (k CertifiedKey) check(a *enroll.Authority) error {
	return a.Certified(context.Background(), k.Device, enroll.Storage, k.Public, k.Attest, k.Signature, k.Qualifying)
}

// decide carries a decision out.
func decide(ctx context.Context, a *enroll.Authority, c EnrollmentChange) error {
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

// enrollments are the records of devices: in their file or, while a server has
// it open, in that server.
type enrollments interface {
	Apply(EnrollmentChange) error
	Records() ([]enroll.Record, error)
	CRL() ([]byte, error)
	Certified(CertifiedKey) error
	io.Closer
}

type localEnrollments struct {
	*authority
	also []io.Closer
}

func (l localEnrollments) Apply(c EnrollmentChange) error {
	return decide(context.Background(), l.Authority, c)
}
func (l localEnrollments) Records() ([]enroll.Record, error) { return l.List(context.Background()) }
func (l localEnrollments) CRL() ([]byte, error)              { return l.Authority.CRL(context.Background()) }
func (l localEnrollments) Certified(k CertifiedKey) error    { return k.check(l.Authority) }

func (l localEnrollments) Close() error {
	errs := []error{l.authority.Close()}
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

func (r remoteEnrollments) Certified(k CertifiedKey) error {
	return fromAuthority(r.Call("Enroller.Certified", k, new(struct{})))
}

func fromAuthority(err error) error {
	return fromServer(err, enroll.ErrUnknown, enroll.ErrName, enroll.ErrState, enroll.ErrKey, enroll.ErrNonce, enroll.ErrAttestation, enroll.ErrSignature)
}

// withEnrollments runs a verb on the records. Those that sign need the CA's key.
func (p *program) withEnrollments(signs bool, do func(enrollments) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if c.Server.Enrollment.State == "" {
		return usagef("devices cannot enroll here: set server.enrollment.state in the configuration")
	}
	all, err := c.openEnrollments(signs)
	if err != nil {
		return err
	}
	defer closing(&err, all)
	return do(all)
}

func (c *config) openEnrollments(signs bool) (enrollments, error) {
	if c.Server.State != "" {
		if remote, err := dialServer(c.Server.State); remote != nil || err != nil {
			return remoteEnrollments{remote}, err
		}
	}
	if err := c.findEnrollments(); err != nil {
		return nil, err
	}
	state, err := c.openState("")
	if err != nil {
		return nil, err
	}
	l := localEnrollments{also: []io.Closer{state}}
	var store keys
	if signs {
		if store, err = c.openKeys(); err != nil {
			return nil, errors.Join(err, state.Close())
		}
		l.also = append([]io.Closer{store}, l.also...)
	}
	if l.authority, err = c.openAuthority(state, store); err != nil {
		for _, open := range l.also {
			err = errors.Join(err, open.Close())
		}
		return nil, err
	}
	return l, nil
}

// find completes the start of an EK hash, or the name of a device.
func find(all []enroll.Record, what string) (enroll.Record, error) {
	var found []enroll.Record
	for _, r := range all {
		if r.Name == what || r.ID.String() == what {
			return r, nil
		}
		if len(what) >= 6 && strings.HasPrefix(r.ID.String(), what) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return enroll.Record{}, fmt.Errorf("no device %q: %w; msl-hsm enrollment list shows the devices", printable(what), enroll.ErrUnknown)
	case 1:
		return found[0], nil
	}
	return enroll.Record{}, usagef("%d devices begin with %q: give more of the EK hash", len(found), what)
}

// completeID finds a device that is there, or takes a whole EK hash of one that
// is to come.
func completeID(s enrollments, what string) (string, error) {
	if _, err := enroll.ParseID(what); err == nil {
		return what, nil
	}
	all, err := s.Records()
	if err != nil {
		return "", err
	}
	r, err := find(all, what)
	return r.ID.String(), err
}

func (p *program) enrollmentList() *cobra.Command {
	var asJSON bool
	var only string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the devices that enrolled, or want to",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withEnrollments(false, func(s enrollments) error {
				all, err := s.Records()
				if err != nil {
					return err
				}
				var shown []enroll.Record
				for _, r := range all {
					if only == "" || string(r.State) == only {
						shown = append(shown, r)
					}
				}
				return list(p.stdout, asJSON, shown, "EK HASH\tNAME\tSTATE\tUPDATED\tWHY", func(r enroll.Record) []any {
					return []any{r.ID.String()[:16], r.Name, r.State, day(r.Updated), reasons(r)}
				})
			})
		},
	}
	c.Flags().StringVar(&only, "state", "", "only those in this `STATE`: pending, approved, enrolled, rejected or revoked")
	jsonFlag(c, &asJSON)
	return c
}

// reasons are why a device may enroll, or waits.
func reasons(r enroll.Record) string {
	switch {
	case r.Waits == "":
		return r.Accepted
	case r.Accepted == "":
		return r.Waits
	}
	return r.Accepted + "; " + r.Waits
}

func (p *program) enrollmentShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show all that is known of a device, with its evidence, as JSON",
		Args:  want("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s enrollments) error {
				all, err := s.Records()
				if err != nil {
					return err
				}
				r, err := find(all, args[0])
				if err != nil {
					return err
				}
				return printJSON(p.stdout, r)
			})
		},
	}
}

// onDevice is a verb that decides about one device.
func (p *program) onDevice(verb, short, done string) *cobra.Command {
	var name, note string
	c := &cobra.Command{
		Use:   verb + " DEVICE",
		Short: short,
		Long:  short + ".\n\nDEVICE is a name, an EK hash, or the start of one, six digits or more.",
		Args:  want("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s enrollments) error {
				id, err := completeID(s, args[0])
				if err == nil {
					err = s.Apply(EnrollmentChange{Verb: verb, Device: id, Name: name, Note: note})
				}
				if err == nil {
					fmt.Fprintf(p.stdout, "%s %s\n", done, id)
				}
				return err
			})
		},
	}
	if verb == "approve" {
		c.Flags().StringVar(&name, "name", "", "`NAME` of the device, its identity (default made of the EK hash)")
	}
	if verb != "remove" {
		c.Flags().StringVar(&note, "note", "", "`TEXT` for the record")
	}
	return c
}

func (p *program) enrollmentRevoke() *cobra.Command {
	var note, serial, key string
	c := &cobra.Command{
		Use:   "revoke DEVICE | --certificate SERIAL",
		Short: "Revoke a device, one of its keys, or a certificate",
		Long: `Revokes a device by its EK: it cannot enroll again until msl-hsm enrollment
reinstate. With --key one of its keys, so that it may enroll another one; with
--certificate one certificate, whose key may get another one.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if (serial == "") == (len(args) == 0) || len(args) > 1 || serial != "" && key != "" {
				return usagef("enrollment revoke needs a DEVICE, with or without --key, or --certificate SERIAL")
			}
			name, err := parseHex("--key", key)
			if err != nil {
				return err
			}
			return p.withEnrollments(false, func(s enrollments) error {
				change := EnrollmentChange{Verb: "revoke certificate", Serial: serial, Key: name, Note: note}
				if serial == "" {
					change.Verb = map[bool]string{true: "revoke key", false: "revoke"}[key != ""]
					if change.Device, err = completeID(s, args[0]); err != nil {
						return err
					}
				}
				if err := s.Apply(change); err != nil {
					return err
				}
				fmt.Fprintf(p.stdout, "revoked %s\n", strings.TrimSpace(change.Device+" "+serial+key))
				return nil
			})
		},
	}
	c.Flags().StringVar(&serial, "certificate", "", "hexadecimal `SERIAL` number of a certificate")
	c.Flags().StringVar(&key, "key", "", "hexadecimal TPM `NAME` of a key, as enrollment show prints it")
	c.Flags().StringVar(&note, "note", "", "`TEXT` for the record")
	return c
}

func (p *program) enrollmentMerge() *cobra.Command {
	var note string
	c := &cobra.Command{
		Use:   "merge OLD NEW",
		Short: "Let a device whose TPM was replaced go on under its name",
		Args:  want("OLD", "NEW"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s enrollments) error {
				old, err := completeID(s, args[0])
				if err != nil {
					return err
				}
				next, err := completeID(s, args[1])
				if err == nil {
					err = s.Apply(EnrollmentChange{Verb: "merge", Device: old, Other: next, Note: note})
				}
				if err == nil {
					fmt.Fprintf(p.stdout, "%s takes the place of %s when it enrolls again\n", next, old)
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&note, "note", "", "`TEXT` for the record")
	return c
}

func (p *program) enrollmentCRL() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "crl",
		Short: "Print the list of revoked certificates, signed by the CA",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withEnrollments(true, func(s enrollments) error {
				der, err := s.CRL()
				if err != nil {
					return err
				}
				if out != "" {
					return atomicfile.Replace(out, enroll.PEM("X509 CRL", der), 0o644)
				}
				_, err = p.stdout.Write(enroll.PEM("X509 CRL", der))
				return err
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "write it to this PEM `FILE`, at once in the place of an older one")
	return c
}
