package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// onDeviceCommand makes a verb that decides about one device.
func onDeviceCommand(p *program, verb, short, done string) *cobra.Command {
	var name, note string
	c := &cobra.Command{
		Use:   verb + " DEVICE",
		Short: short,
		Long:  short + ".\n\nDEVICE is a name, an EK hash, or the start of one, six digits or more.",
		Args:  want("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				id, err := completeID(s, args[0])
				if err == nil {
					err = s.Apply(admin.EnrollmentChange{Verb: verb, Device: id, Name: name, Note: note})
				}
				if err == nil {
					fmt.Fprintf(p.stdout, "%s %s\n", done, id)
				}
				return err
			})
		},
	}
	if verb == "approve" {
		c.Flags().StringVar(&name, "name", "", "`NAME` of the device, its identity (default derived from the EK hash)")
		approveFile(p, c, &name, &note)
	}
	if verb != "remove" {
		c.Flags().StringVar(&note, "note", "", "`TEXT` for the record")
	}
	return c
}

func enrollmentRevokeCommand(p *program) *cobra.Command {
	var note, serial, key string
	c := &cobra.Command{
		Use:   "revoke DEVICE | --certificate SERIAL",
		Short: "Revoke a device, one of its keys, or a certificate",
		Long: `Revokes a device by its EK: it cannot enroll again until msl-hsm enrollment
reinstate. With --key, revokes one of its keys, so that it may enroll another; with
--certificate, one certificate, whose key may get another.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if (serial == "") == (len(args) == 0) || len(args) > 1 || serial != "" && key != "" {
				return exit.Usagef("enrollment revoke needs a DEVICE, with or without --key, or --certificate SERIAL")
			}
			name, err := exit.ParseHex("--key", key)
			if err != nil {
				return err
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				change := admin.EnrollmentChange{Verb: "revoke certificate", Serial: serial, Key: name, Note: note}
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

func enrollmentMergeCommand(p *program) *cobra.Command {
	var note string
	c := &cobra.Command{
		Use:   "merge OLD NEW",
		Short: "Let a device whose TPM was replaced keep its name",
		Args:  want("OLD", "NEW"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				old, err := completeID(s, args[0])
				if err != nil {
					return err
				}
				next, err := completeID(s, args[1])
				if err == nil {
					err = s.Apply(admin.EnrollmentChange{Verb: "merge", Device: old, Other: next, Note: note})
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
