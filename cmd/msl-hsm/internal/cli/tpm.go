package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// withDevice runs a verb on this machine's TPM.
func (p *program) withDevice(do func(*config.Config, *keys.Device) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	m, err := keys.OpenDevice(c)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, m)
	return do(c, m)
}

// progress reports a step that takes time.
func progress(log io.Writer) func(what string) {
	return func(what string) {
		if onTerminal(log) {
			fmt.Fprintln(log, "…", what)
		}
	}
}

func tpmInitCommand(p *program) *cobra.Command {
	var ek, certificate, service string
	var algorithms []string
	var o identity.InitOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this machine's keys in its TPM",
		Long: `Makes the storage key, the attestation key and the identity keys of this machine in
its TPM, which --keystore tpm:?state=FILE names. Nothing that it writes to disk is
secret. It can be repeated: existing keys stay. If the TPM no longer has them, because it
was cleared, it makes new ones, and keeps the files of the lost ones under names that end
in .lost, or in .lost-2 and so on. Enroll this machine again after that.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if ek != "" {
				if o.EK, err = keys.EKKind("--ek", ek, identity.EKKinds()); err != nil {
					return err
				}
			}
			if certificate != "" {
				if o.Certificate, err = readEKCertificate(certificate); err != nil {
					return exit.Usagef("--ek-certificate: %w", err)
				}
			}
			for _, name := range algorithms {
				a, err := keystore.ParseAlgorithm(name)
				if err != nil {
					return exit.Usagef("--algorithm: %w; want ecdsa-p256 or rsa2048-sign", err)
				}
				o.Algorithms = append(o.Algorithms, a)
			}
			err = initTPM(p, c.Context(), o, service)
			if certificate != "" && errors.Is(err, identity.ErrEKCertificate) {
				return exit.Usagef("--ek-certificate: %s: %w: get that of this TPM from the maker, in PEM or DER", certificate, err)
			}
			return err
		},
	}
	c.Flags().StringVar(&ek, "ek", "", "`KIND` of endorsement key: rsa2048, p256, p384, rsa3072, p521, rsa2048-high or p256-high (default the first with a certificate)")
	c.Flags().StringVar(&certificate, "ek-certificate", "", "certificate of the endorsement key, if the TPM has none, in this PEM or DER `FILE`")
	c.Flags().StringVar(&service, "ek-service", "", "where to ask for that certificate if the TPM has none: `MAKER` intel or amd, or intel:URL for another address")
	c.Flags().StringSliceVar(&algorithms, "algorithm", nil, "`ALGORITHM` of an identity key: ecdsa-p256 or rsa2048-sign")
	completeFlag(c, "algorithm", "ecdsa-p256", "rsa2048-sign")
	completeFlag(c, "ek", strings.Split(exit.List(identity.EKKinds()), ", ")...)
	c.Flags().BoolVar(&o.NewKeys, "new-keys", false, "make new identity keys, because the old ones were revoked")
	c.Flags().BoolVar(&o.Replace, "replace", false, "give up the identity that this machine had with another TPM")
	return c
}

// readEKCertificate reads a file with the certificate of an endorsement key and those above it.
func readEKCertificate(path string) ([]byte, error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%s is empty: get it from the maker again", path)
	}
	if _, err := strictpem.Decode(text); err != nil && !json.Valid(text) { // as from Intel
		return nil, fmt.Errorf("%s: %w: get it from the maker again", path, err)
	}
	return text, nil
}

func initTPM(p *program, ctx context.Context, o identity.InitOptions, service string) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if o.Service, err = keys.EKService(c, service); err != nil {
		return err
	}
	o.Uncertified = func(err error) {
		fmt.Fprintf(p.stderr, "msl-hsm: no certificate of the endorsement key: %s; without it, an operator must approve this machine: run msl-hsm tpm init again to retry\n", exit.Printable(exit.OneLine(err)))
	}
	o.GivenUp = func(kept string) {
		fmt.Fprintf(p.stderr, "msl-hsm: the TPM no longer has this machine's identity keys: new ones were made, which no server knows yet: run msl-hsm tpm enroll; the file with the former ones is kept as %s\n", exit.Printable(kept))
	}
	m, err := keys.InitDevice(c, o.Replace, func(what string) { fmt.Fprintf(p.stderr, "msl-hsm: %s\n", exit.Printable(what)) })
	if err != nil {
		return err
	}
	defer exit.Closing(&err, m)
	if err := m.Identity.Init(ctx, o, progress(p.stderr)); err != nil {
		return err
	}
	s, err := m.Identity.Status()
	if err == nil {
		fmt.Fprintf(p.stdout, "this machine is EK hash %s\n", s.ID)
	}
	return err
}

func tpmStatusCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what identity this machine has",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withDevice(func(_ *config.Config, m *keys.Device) error {
				s, err := m.Identity.Status()
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(p.stdout, s)
				} else {
					err = printStatus(p, s)
				}
				if s.Initialized {
					err = errors.Join(err, m.Identity.Check())
				}
				return err
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func printStatus(p *program, s identity.Status) error {
	if !s.Initialized {
		_, err := fmt.Fprintln(p.stdout, "no identity yet: run msl-hsm tpm init")
		return err
	}
	fmt.Fprintf(p.stdout, "EK hash   %s (%s)\nAK        %s\nenrolled  %s\n", s.ID, s.EK, s.AK, yesNo(s.Enrolled))
	if s.Enrolled {
		fmt.Fprintf(p.stdout, "name      %s\n", exit.Printable(s.Name))
	}
	if s.LastAnswer != "" {
		fmt.Fprintf(p.stdout, "last      %s: %s\n", day(*s.LastAttempt), exit.Printable(s.LastAnswer))
	}
	if s.Renewing {
		fmt.Fprintln(p.stdout, "renewal   not completed: run msl-hsm tpm renew")
	}
	for _, k := range s.Keys {
		line := fmt.Sprintf("key       %s %s", k.Algorithm, k.Name)
		if k.NotAfter != nil {
			line += ", certificate " + k.Serial + " until " + day(*k.NotAfter)
		}
		fmt.Fprintln(p.stdout, line)
	}
	return nil
}

// tpmApply makes the verb enroll or renew: a conversation with the server's authority.
func tpmApply(p *program, use, short, long, done string, apply func(*identity.Device, context.Context, identity.Exchange, func(string)) error) *cobra.Command {
	var over config.Client
	var pcrs []uint
	var eventLog string
	c := &cobra.Command{
		Use:   use + " --server URL",
		Short: short,
		Long:  long,
		Args:  want(),
		RunE: func(c *cobra.Command, _ []string) error {
			if eventLog != "" && len(pcrs) == 0 {
				return exit.Usagef("--event-log goes with --pcr NUMBERS: add that, or omit both")
			}
			if err := checkPCRs(pcrs); err != nil {
				return err
			}
			return p.withDevice(func(cfg *config.Config, m *keys.Device) error {
				overrideClient(&cfg.Client, over)
				config.Override(&cfg.Client.URL, over.URL)
				client, err := clientside.NewcomerClient(cfg)
				if err != nil {
					return err
				}
				defer client.Close()
				if m.Identity.PCRs = pcrs; len(pcrs) > 0 {
					if m.Identity.EventLog, err = keys.EventLog(cfg, "--event-log", eventLog); err != nil {
						return err
					}
				}
				err = apply(m.Identity, c.Context(), clientside.EnrollmentExchange(client, cfg), progress(p.stderr))
				s, statusErr := m.Identity.Status()
				switch {
				case err != nil:
					return afterEnrolling(err, s.ID)
				case statusErr == nil:
					fmt.Fprintf(p.stdout, "%s as %s\n", done, exit.Printable(s.Name))
				}
				return statusErr
			})
		},
	}
	c.Flags().StringVar(&over.URL, "server", "", "`URL` of the server's enrollment")
	c.Flags().StringVar(&over.ServerKey, "server-key", "", "public key of the server, in this PEM `FILE`")
	c.Flags().StringVar(&over.Recipient, "recipient", "", "identity `NAME` of the server")
	c.Flags().UintSliceVar(&pcrs, "pcr", nil, "also prove the state in which this machine was started, by the PCRs with these `NUMBERS`")
	c.Flags().Lookup("pcr").DefValue = "" // which is not printed
	c.Flags().StringVar(&eventLog, "event-log", "", "event log that goes with --pcr if the server asks for it, in this `FILE` (default that of the kernel, for a TPM in /dev)")
	return c
}

func parseNonce(text string) ([]byte, error) {
	nonce, err := exit.ParseHex("--nonce", text)
	if err == nil {
		if err = fleet.CheckNonce(nonce); err != nil {
			err = exit.Usagef("--nonce: %w", err)
		}
	}
	return nonce, err
}

func checkPCRs(numbers []uint) error {
	for _, n := range numbers {
		if n > 23 {
			return exit.Usagef("--pcr: there is no PCR %d: name some of 0 to 23", n)
		}
	}
	return nil
}

// afterEnrolling says what to do about an answer of the authority to that device.
func afterEnrolling(err error, id string) error {
	switch {
	case errors.Is(err, identity.ErrPending):
		return fmt.Errorf("%w; at the server, run msl-hsm enrollment approve %s", err, id[:16])
	case errors.Is(err, identity.ErrStale):
		return fmt.Errorf("%w: run the command again; if there are several servers, compare their clocks", err)
	}
	return err
}

func tpmEnrollCommand(p *program) *cobra.Command {
	return tpmApply(p, "enroll", "Prove this machine to a server, and get an identity",
		`Proves to the server that the keys of this machine are in its TPM, and keeps the
identity that the server gives. It can be repeated at any time, even after a crash. If
a person has to approve the machine, run it again after that.`,
		"enrolled", (*identity.Device).Enroll)
}

func tpmRenewCommand(p *program) *cobra.Command {
	return tpmApply(p, "renew", "Get a new identity key, for which the old one vouches",
		`Makes new identity keys and enrolls them. The present keys vouch for them, and stay in
use until the server has accepted the new ones.`,
		"renewed", (*identity.Device).Renew)
}

func tpmQuoteCommand(p *program) *cobra.Command {
	var nonce, eventLog string
	var pcrs []uint
	c := &cobra.Command{
		Use:   "quote --nonce HEX",
		Short: "Have the TPM sign the state of this machine, as JSON",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			n, err := parseNonce(nonce)
			if err == nil {
				err = checkPCRs(pcrs)
			}
			if err != nil {
				return err
			}
			return p.withDevice(func(cfg *config.Config, m *keys.Device) (err error) {
				if eventLog != "" {
					if m.Identity.EventLog, err = keys.EventLog(cfg, "--event-log", eventLog); err != nil {
						return err
					}
				}
				quote, err := m.Identity.Quote(n, pcrs)
				if err == nil {
					_, err = fmt.Fprintf(p.stdout, "%s\n", quote)
				}
				return err
			})
		},
	}
	flags := flagGroup{title: "Flags"}
	flags.set().StringVar(&nonce, "nonce", "", "16 to 32 bytes from the verifier, as hexadecimal `DIGITS`")
	flags.set().UintSliceVar(&pcrs, "pcr", []uint{0, 1, 2, 3, 4, 5, 6, 7}, "`NUMBERS` of PCRs, of the SHA-256 bank")
	flags.set().StringVar(&eventLog, "event-log", "", "include the event log of this boot, from this `FILE`, or without one from the kernel")
	flags.c.Flags().Lookup("event-log").NoOptDefVal = keys.KernelLog
	grouped(c, flags)
	return c
}
