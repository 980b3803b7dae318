package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentVerifyCommand(p *program) *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:   "verify [DEVICE|FILE]",
		Short: "Check the evidence of devices again, offline and without trusting the records",
		Long: `Checks what devices proved when they enrolled: the chain of the EK certificate to a root of
server.enrollment.ek-roots, that of the device's maker to one of device-roots, what the
attestation key certified, the requests for the keys, and the CA's signatures. A FILE is what
enrollment show printed; without an argument, every device is checked.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			v, err := verifier(c, at)
			if err != nil {
				return err
			}
			return p.verifyRecords(v, args)
		},
	}
	c.Flags().StringVar(&at, "at", "", "`TIME` when EK certificates have to be valid, as 2026-01-31 (default when they were checked)")
	return c
}

func verdict(err error) string {
	if err != nil {
		return "NOT PROVEN"
	}
	return "proven"
}

func verifier(c *config.Config, at string) (v enroll.Verifier, err error) {
	policy, err := keys.EnrollmentPolicy(&c.Server.Enrollment)
	if err != nil {
		return v, err
	}
	v.Roots, v.DeviceRoots = policy.Bundle.Roots, policy.Devices.Roots
	if c.Server.Enrollment.CA != "" {
		if v.CA, err = keys.ReadCertificate("server.enrollment.ca", c.Server.Enrollment.CA); err != nil {
			return v, err
		}
	}
	if at != "" {
		if v.Time, err = time.Parse(time.DateOnly, at); err != nil {
			return v, exit.Usagef("--at %q: want a day such as 2026-01-31", at)
		}
	}
	return v, nil
}

// verifyRecords checks one record from a file or from the server, or all records.
func (p *program) verifyRecords(v enroll.Verifier, args []string) error {
	if len(args) == 1 {
		text, err := plainfile.Read(args[0])
		switch info, missing := os.Stat(args[0]); {
		case missing != nil && errors.Is(missing, fs.ErrNotExist), missing == nil && info.IsDir(): // so it names a device
		case err != nil:
			return exit.Usagef("%w; name a file of what enrollment show prints, or a device", err)
		default:
			var r enroll.Record
			if err := json.Unmarshal(text, &r); err != nil || r.ID == (enroll.Record{}).ID {
				return exit.Usagef("%s is not what enrollment show prints: name a file of its JSON, or a device", args[0])
			}
			return verifyRecord(p.stdout, v, &r)
		}
	}
	return p.withEnrollments(false, func(s admin.Enrollments) error {
		if len(args) == 0 {
			return p.verifyAll(v, s)
		}
		r, err := find(s, args[0])
		if err != nil {
			return err
		}
		return verifyRecord(p.stdout, v, &r)
	})
}

// maxFailures is how many unproven devices are named in the error.
const maxFailures = 20

func (p *program) verifyAll(v enroll.Verifier, s admin.Enrollments) error {
	var failed []error
	more := 0
	_, err := enroll.Walk(enroll.Query{Evidence: true, Limit: pageSize}, 0, s.Page, func(some []enroll.Record) error {
		for _, r := range some {
			if r.Evidence == nil && r.State != enroll.Enrolled {
				fmt.Fprintf(p.stdout, "%s  %-10s %s  never came\n", r.ID.String()[:16], r.State, exit.Printable(r.Name))
				continue
			}
			switch err := verifyRecord(p.stdout, v, &r); {
			case err != nil && len(failed) < maxFailures:
				failed = append(failed, err)
			case err != nil:
				more++
			}
		}
		return nil
	})
	if more > 0 {
		failed = append(failed, fmt.Errorf("and %d others are not proven", more))
	}
	return errors.Join(append(failed, err)...)
}

func verifyRecord(w io.Writer, v enroll.Verifier, r *enroll.Record) error {
	err := v.Verify(r)
	fmt.Fprintf(w, "%s  %-10s %s  %s\n", r.ID.String()[:16], r.State, exit.Printable(r.Name), verdict(err))
	return err
}
