package cli

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentLearnCommand(p *program) *cobra.Command {
	var only []uint
	c := &cobra.Command{
		Use:   "learn DEVICE...",
		Short: "Print the setting that allows the state in which devices were started",
		Long: `Prints server.enrollment.pcr with the values that the PCRs of these devices had when they
last enrolled, renewed or applied with --pcr: those of a reference device of each kind,
for instance. Nothing is changed.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("enrollment learn needs a DEVICE, or several")
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				return learn(p, s, args, only)
			})
		},
	}
	c.Flags().UintSliceVar(&only, "pcr", nil, "only the PCRs with these `NUMBERS` (default all that a device proved)")
	return c
}

func learn(p *program, s admin.Enrollments, devices []string, only []uint) error {
	learned := map[uint][]string{}
	for _, device := range devices {
		found, err := provedBy(s, device, only)
		if err != nil {
			return err
		}
		for i, value := range found {
			if !slices.Contains(learned[i], value) {
				learned[i] = append(learned[i], value)
			}
		}
	}
	fmt.Fprint(p.stdout, "server:\n  enrollment:\n    pcr:\n")
	for _, i := range slices.Sorted(maps.Keys(learned)) {
		fmt.Fprintf(p.stdout, "      %d: [%s]\n", i, strings.Join(learned[i], ", "))
	}
	return nil
}

// provedBy returns the values that a device proved, of these PCRs or of all, in hexadecimal.
func provedBy(s admin.Enrollments, device string, only []uint) (map[uint]string, error) {
	r, err := find(s, device)
	if err != nil {
		return nil, err
	}
	values, err := r.PCRs()
	if err != nil {
		return nil, err
	}
	found := map[uint]string{}
	for _, v := range values {
		if len(only) == 0 || slices.Contains(only, v.Index) {
			found[v.Index] = hex.EncodeToString(v.Digest)
		}
	}
	for _, i := range only {
		if found[i] == "" {
			return nil, fmt.Errorf("device %s did not prove PCR %d: have it enroll with --pcr", exit.Printable(device), i)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("device %s did not prove the state in which it was started: have it enroll with --pcr 0,1,2,3,4,5,6,7", exit.Printable(device))
	}
	return found, nil
}

func enrollmentQuoteCommand(p *program) *cobra.Command {
	var nonce string
	verify := &cobra.Command{
		Use:   "verify DEVICE FILE --nonce HEX",
		Short: "Check what msl-hsm tpm quote printed on a device",
		Long: `Checks that the attestation key of the enrolled device signed the values of its PCRs, for
the nonce that you gave it and nobody used before, and that server.enrollment.pcr allows
them. FILE is - for the standard input.`,
		Args: want("DEVICE", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := exit.ParseHex("--nonce", nonce)
			if err != nil {
				return err
			}
			if len(n) < 16 {
				return exit.Usagef("--nonce has %d bytes: give what the device was given, 16 to 32 bytes", len(n))
			}
			evidence, err := readQuote(p, args[1])
			if err != nil {
				return err
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				return verifyQuote(p, s, args[0], evidence, n)
			})
		},
	}
	verify.Flags().StringVar(&nonce, "nonce", "", "the nonce that the device was given, as hexadecimal `DIGITS`")
	return group("quote", "Check the state that devices prove", verify)
}

// maxQuote is the size in bytes up to which a file may be a quote.
const maxQuote = enroll.MaxMessage

func readQuote(p *program, path string) ([]byte, error) {
	from := p.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, exit.Usagef("%w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxQuote))
	return bytes.TrimSpace(text), err // the message is in its canonical form, which has no end of line
}

func verifyQuote(p *program, s admin.Enrollments, device string, evidence, nonce []byte) error {
	r, err := find(s, device)
	if err != nil {
		return err
	}
	values, err := enroll.VerifyQuote(evidence, &r, nonce)
	if err != nil {
		return err
	}
	for _, v := range values {
		fmt.Fprintf(p.stdout, "PCR %2d  %x\n", v.Index, v.Digest)
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	policy, err := keys.EnrollmentPolicy(&c.Server.Enrollment)
	if err != nil {
		return err
	}
	switch why := policy.PCRs.Differences(values); {
	case why != "":
		return fmt.Errorf("device %s: %s", exit.Printable(r.Name), why)
	case len(policy.PCRs) == 0:
		fmt.Fprintf(p.stdout, "signed by %s; server.enrollment.pcr has no rules\n", exit.Printable(r.Name))
	default:
		fmt.Fprintf(p.stdout, "signed by %s, and allowed by server.enrollment.pcr\n", exit.Printable(r.Name))
	}
	return nil
}
