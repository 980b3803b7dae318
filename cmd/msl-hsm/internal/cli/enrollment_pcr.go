package cli

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentLearnCommand(p *program) *cobra.Command {
	var only []uint
	var events string
	c := &cobra.Command{
		Use:   "learn DEVICE...",
		Short: "Print the setting that allows the state in which devices were started",
		Long: `Prints server.enrollment.pcr with the values that the PCRs of these devices had when they
last enrolled, renewed or applied with --pcr. Name, for instance, one reference device of
each kind. Nothing on the server changes.

With --events it also writes the events that led to these values, taken from the devices'
event logs, to a file for server.enrollment.event-log. With that file, a server reports
which event of another device differs.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("enrollment learn needs a DEVICE, or several")
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				setting, err := learn(s, args, only)
				if err == nil && events != "" {
					err = learnEvents(s, args, only, events)
				}
				if err == nil {
					_, err = io.WriteString(p.stdout, setting)
				}
				return err
			})
		},
	}
	c.Flags().UintSliceVar(&only, "pcr", nil, "only the PCRs with these `NUMBERS` (default all that a device proved)")
	c.Flags().Lookup("pcr").DefValue = "" // which is not printed
	c.Flags().StringVar(&events, "events", "", "also write the events that led to the values to this `FILE`")
	return c
}

// learn returns the setting that allows the states of reference devices.
func learn(s admin.Enrollments, devices []string, only []uint) (string, error) {
	learned := map[uint][]string{}
	for _, device := range devices {
		found, err := provedBy(s, device, only)
		if err != nil {
			return "", err
		}
		for i, value := range found {
			if !slices.Contains(learned[i], value) {
				learned[i] = append(learned[i], value)
			}
		}
	}
	setting := "server:\n  enrollment:\n    pcr:\n"
	for _, i := range slices.Sorted(maps.Keys(learned)) {
		setting += fmt.Sprintf("      %d: [%s]\n", i, strings.Join(learned[i], ", "))
	}
	return setting, nil
}

// learnEvents writes the start events of reference devices to a file, all or nothing.
func learnEvents(s admin.Enrollments, devices []string, only []uint, path string) error {
	var list []enroll.Reference
	for _, device := range devices {
		r, err := find(s, device)
		if err != nil {
			return err
		}
		events, err := bootEvents(&r, only)
		if err != nil {
			return err
		}
		list = append(list, enroll.Reference{Device: r.Name, Events: events})
	}
	text, err := enroll.EncodeReferences(list)
	if err != nil {
		return err
	}
	return atomicfile.Replace(path, text, 0o644)
}

// bootEvents returns the events that led to what a device proved, for these PCRs or all.
func bootEvents(r *enroll.Record, only []uint) (events []enroll.BootEvent, err error) {
	l, err := r.BootLog()
	if err != nil {
		return nil, fmt.Errorf("device %s: %w: have it renew with --event-log FILE", exit.Printable(r.Name), err)
	}
	if len(l.Events) == 0 && len(l.Astray) == 0 {
		return nil, fmt.Errorf("device %s did not send its event log: set server.enrollment.event-log to ask, and have it renew with --pcr", exit.Printable(r.Name))
	}
	wanted := func(pcr uint) bool { return len(only) == 0 || slices.Contains(only, pcr) }
	for _, pcr := range l.Astray {
		if wanted(pcr) {
			return nil, fmt.Errorf("device %s: its event log does not lead to the value of PCR %d: leave it out by --pcr", exit.Printable(r.Name), pcr)
		}
	}
	return slices.DeleteFunc(l.Events, func(e enroll.BootEvent) bool { return !wanted(e.PCR) }), nil
}

// provedBy returns the values that a device proved, for these PCRs or all, in
// hexadecimal.
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
	var nonce, eventLog string
	verify := &cobra.Command{
		Use:   "verify DEVICE FILE --nonce HEX",
		Short: "Check what msl-hsm tpm quote printed on a device",
		Long: `Checks that the attestation key of the enrolled device signed the values of its PCRs, for
a fresh nonce that you gave it, and that server.enrollment.pcr allows these values. FILE
may be - for standard input.

If the quote includes the device's event log, or --event-log names it, the log must lead
to these values, too. For a value that is not allowed, the event that differs from
server.enrollment.event-log is named.

Notes say if the TPM has other firmware than when it last signed something for this server, if
the quote is older than that, and if the TPM lost its power without being shut down.`,
		Args: want("DEVICE", "FILE or -"),
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := exit.ParseHex("--nonce", nonce)
			if err != nil {
				return err
			}
			if len(n) < 16 || len(n) > 32 {
				return exit.Usagef("--nonce has %d bytes: give what the device was given, 16 to 32 bytes", len(n))
			}
			evidence, err := readQuote(p, args[1])
			if err != nil {
				return err
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				return advised(args[1], verifyQuote(p, s, quoted{args[0], evidence, n, eventLog}))
			})
		},
	}
	verify.Flags().StringVar(&nonce, "nonce", "", "the nonce that the device was given, as hexadecimal `DIGITS`")
	verify.Flags().StringVar(&eventLog, "event-log", "", "event log of the device, in this `FILE` (default the one that came with the quote)")
	return group("quote", "Check the state that devices prove", verify)
}

// maxQuote is the maximum size of a quote file, in bytes.
const maxQuote = enroll.MaxMessage

func readQuote(p *program, path string) ([]byte, error) {
	if path == "-" {
		text, err := io.ReadAll(io.LimitReader(p.stdin, maxQuote))
		return bytes.TrimSpace(text), err
	}
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("%w", err)
	}
	return bytes.TrimSpace(text), nil // the message is in canonical form, without a final newline
}

// A quoted is the input of enrollment quote verify.
type quoted struct {
	device          string
	evidence, nonce []byte
	eventLog        string // file, or empty
}

// log returns the event log to check, or nil.
func (q *quoted) log() ([]byte, error) {
	if q.eventLog == "" {
		return enroll.QuotedLog(q.evidence)
	}
	log, err := plainfile.Read(q.eventLog)
	if err != nil {
		return nil, exit.Usagef("--event-log: %w", err)
	}
	if len(log) == 0 {
		return nil, exit.Usagef("--event-log: %s is empty", q.eventLog)
	}
	return log, nil
}

func verifyQuote(p *program, s admin.Enrollments, q quoted) error {
	r, err := find(s, q.device)
	if err != nil {
		return err
	}
	values, err := enroll.VerifyQuote(q.evidence, &r, q.nonce)
	if err != nil {
		return err
	}
	log, err := q.log()
	if err != nil {
		return err
	}
	for _, v := range values {
		fmt.Fprintf(p.stdout, "PCR %2d  %x\n", v.Index, v.Digest)
	}
	remarks, err := enroll.QuoteRemarks(q.evidence, &r)
	if err != nil {
		return err
	}
	for _, remark := range remarks {
		fmt.Fprintf(p.stdout, "note    %s\n", remark)
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	policy, err := keys.EnrollmentPolicy(&c.Server.Enrollment)
	if err != nil {
		return err
	}
	if why := policy.Differences(values, log); why != "" {
		return fmt.Errorf("device %s: %s", exit.Printable(r.Name), why)
	}
	if err := checkEventLog(p, log, values); err != nil {
		return fmt.Errorf("device %s: %w", exit.Printable(r.Name), err)
	}
	verdict := ", and allowed by server.enrollment.pcr"
	if len(policy.PCRs) == 0 {
		verdict = "; server.enrollment.pcr has no rules"
	}
	_, err = fmt.Fprintf(p.stdout, "signed by %s%s\n", exit.Printable(r.Name), verdict)
	return err
}

// advised adds to why the quote in a file does not verify what to do.
func advised(file string, err error) error {
	switch {
	case exit.IsAny(err, enroll.ErrMalformed, enroll.ErrSignature):
		return fmt.Errorf("%s: %w: have the device make it again with msl-hsm tpm quote", exit.Printable(file), err)
	case errors.Is(err, enroll.ErrKey):
		return fmt.Errorf("%s: %w: name the device that made it, or run msl-hsm tpm enroll there, since its TPM may have been cleared", exit.Printable(file), err)
	case errors.Is(err, enroll.ErrState):
		return fmt.Errorf("%w: approve or reinstate it, and run msl-hsm tpm enroll there", err)
	case errors.Is(err, enroll.ErrEventLog):
		return fmt.Errorf("%w: name the log of this start of the device with --event-log, or have it make a quote without one", err)
	}
	return err
}

// checkEventLog prints the events, if there is a log, and requires that they lead to all
// values.
func checkEventLog(p *program, log []byte, values []enroll.PCR) error {
	if len(log) == 0 {
		return nil
	}
	l, err := enroll.ReadBootLog(log, values)
	if err != nil {
		return err
	}
	for _, e := range l.Events {
		fmt.Fprintf(p.stdout, "event   PCR %2d  %v\n", e.PCR, e)
	}
	if len(l.Astray) > 0 {
		return fmt.Errorf("its event log does not lead to the values of PCR %s", strings.Trim(fmt.Sprint(l.Astray), "[]"))
	}
	return nil
}
