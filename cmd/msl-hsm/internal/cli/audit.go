package cli

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func auditKeyCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the public keys that verify the audit log elsewhere",
		Long: `Prints the public keys of all versions of the key that signs the audit log, newest
first, in PEM. Keep them where nobody who can write the log can change them: with another key
in their place, another log would verify.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			all, err := p.auditKeys(nil)
			if err != nil {
				return err
			}
			for _, public := range all {
				der, err := x509.MarshalPKIXPublicKey(public)
				if err != nil {
					return err
				}
				if err := pem.Encode(p.stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: der}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func auditVerifyCommand(p *program) *cobra.Command {
	var from, seen []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Look for lines of an audit log that were removed, changed, added or moved",
		Long: `Verifies the files of audit logs, in any order, offline: number and chain value of each
line, and each signature. Each fault is reported with its line, and the exit code is 1.

Without --key, the public keys are those of the key store of the configuration.

Lines after the last signature are only chained. The files do not show whether lines were
cut off from the end, unless the server had stopped in an orderly way. Keep what this prints
as "last" elsewhere, or the server's log, which has it at each start and stop: with
--contains the log must still have that record.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				return exit.Usagef("audit verify needs the FILEs of a log")
			}
			if err := eachOnce(files); err != nil {
				return err
			}
			return p.verifyAudit(files, from, seen, asJSON)
		},
	}
	c.Flags().StringArrayVar(&from, "key", nil, "`FILE` with public keys that audit key printed; repeatable")
	c.Flags().StringArrayVar(&seen, "contains", nil, "`N:CHAIN` of a record that was seen earlier; repeatable")
	jsonFlag(c, &asJSON)
	return c
}

// eachOnce refuses a file that is named twice: its lines would seem to be repeated.
func eachOnce(files []string) error {
	var seen []os.FileInfo
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			continue // which is told when it is read
		}
		if slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(other, info) }) {
			return exit.Usagef("%s is named twice: name each file of the log once", name)
		}
		seen = append(seen, info)
	}
	return nil
}

// auditKeys reads public keys from files, or else from the key store.
func (p *program) auditKeys(files []string) (all []crypto.PublicKey, err error) {
	for _, name := range files {
		some, err := keys.ReadPublicKeys(name)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(files) > 0 {
		return all, nil
	}
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	store, err := keys.Open(c)
	if err != nil {
		return nil, err
	}
	defer exit.Closing(&err, store)
	return keys.AuditKeys(c, store)
}

func (p *program) verifyAudit(files, from, seen []string, asJSON bool) error {
	var positions []auditlog.Position
	for _, text := range seen {
		position, err := auditlog.ParsePosition(text)
		if err != nil {
			return exit.Usagef("--contains %w", err)
		}
		positions = append(positions, position)
	}
	all, err := p.auditKeys(from)
	if err != nil {
		return err
	}
	byID := map[string]crypto.PublicKey{}
	for _, public := range all {
		id, err := keystore.KeyID(public)
		if err != nil {
			return err
		}
		byID[id] = public
	}
	r, err := auditlog.Verify(files, byID, positions)
	if err != nil {
		return exit.Usagef("audit log: %w; name the files of the log", err)
	}
	return printAudit(p.stdout, r, asJSON)
}

func printAudit(out io.Writer, r auditlog.Report, asJSON bool) error {
	if asJSON {
		if err := printJSON(out, r); err != nil {
			return err
		}
	} else {
		for _, s := range r.Logs {
			printLog(out, s)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(out, "WRONG  %s\n", exit.Printable(place(f)+f.Text))
		}
	}
	if len(r.Findings) > 0 {
		return exit.WithCode(fmt.Errorf("the audit log is not as it was written, findings: %d; keep the files, and find out who can write them", len(r.Findings)), exit.Failure)
	}
	return nil
}

// place says where something was found.
func place(f auditlog.Finding) string {
	switch {
	case f.File == "":
		return ""
	case f.Line == 0:
		return f.File + ": "
	}
	return f.File + ":" + strconv.Itoa(f.Line) + ": "
}

func printLog(out io.Writer, s auditlog.Summary) {
	end := "open"
	if s.Stopped {
		end = "the server stopped in order"
	}
	signed := "nothing"
	if s.Checkpoints > 0 {
		signed = fmt.Sprintf("up to record %d of %s, by %s", s.Signed, s.SignedAt.UTC().Format(time.RFC3339), exit.Count(s.Checkpoints, "signature", "signatures"))
	}
	fmt.Fprintf(out, "log %s\n  files    %d\n  records  %d, numbered from %d; %d of them are the log's own, for its files and signatures\n  signed   %s\n  end      %s\n  last     %s\n",
		exit.Printable(s.Log), len(s.Files), s.Records+s.Own, s.First, s.Own, signed, end, s.Last)
	for _, note := range s.Notes {
		fmt.Fprintf(out, "  note     %s\n", exit.Printable(note))
	}
}
