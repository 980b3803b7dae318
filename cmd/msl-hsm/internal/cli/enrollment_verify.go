package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentVerifyCommand(p *program) *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:   "verify [DEVICE|FILE]",
		Short: "Check the evidence of devices again, without them and without trust in the records",
		Long: `Checks what devices proved when they enrolled: the EK certificate's way to a root of
server.enrollment.ek-roots, that of the device's maker to one of device-roots, what the attestation key certified, the requests of the
keys and the CA's signatures. A FILE is what enrollment show printed; without an
argument it checks every device.`,
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
			records, err := recordsOf(p, args)
			if err != nil {
				return err
			}
			var failed []error
			for _, r := range records {
				if r.Evidence == nil && r.State != enroll.Enrolled && len(args) == 0 {
					fmt.Fprintf(p.stdout, "%s  %-10s %s  never came\n", r.ID.String()[:16], r.State, exit.Printable(r.Name))
					continue
				}
				err := v.Verify(&r)
				fmt.Fprintf(p.stdout, "%s  %-10s %s  %s\n", r.ID.String()[:16], r.State, exit.Printable(r.Name), verdict(err))
				if err != nil {
					failed = append(failed, err)
				}
			}
			return errors.Join(failed...)
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
			return v, exit.Usagef("--at %q: want a day as 2026-01-31", at)
		}
	}
	return v, nil
}

// recordsOf reads one record from a file or from the server, or all records.
func recordsOf(p *program, args []string) (all []enroll.Record, err error) {
	if len(args) == 1 {
		if text, err := os.ReadFile(args[0]); err == nil {
			all = make([]enroll.Record, 1)
			if err := json.Unmarshal(text, &all[0]); err != nil {
				return nil, exit.Usagef("%s is not what enrollment show prints: %w", args[0], err)
			}
			return all, nil
		}
	}
	err = p.withEnrollments(false, func(s admin.Enrollments) error {
		if all, err = s.Records(); err != nil || len(args) == 0 {
			return err
		}
		r, err := find(all, args[0])
		all = []enroll.Record{r}
		return err
	})
	return all, err
}
