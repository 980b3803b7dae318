//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm/modulecheck"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// moduleCheckVerb is the hidden verb of the processes of module test.
const moduleCheckVerb = "module-check"

func moduleCommand(p *program) *cobra.Command {
	return group("module", "Test a vendor's PKCS #11 library", moduleTestCommand(p))
}

func moduleTestCommand(p *program) *cobra.Command {
	var clean, asJSON, all bool
	c := &cobra.Command{
		Use:   "test [URI]",
		Short: "Test what a PKCS #11 module has, lacks and gets wrong, on a token of yours",
		Long: `Tests what a PKCS #11 module has, lacks and gets wrong, on a token of yours: the checks
that a server makes at each start, the conformance suite of key stores, and an exchange of
key pairs with crypto11, an independent PKCS #11 library. URI names the token (default: that
of --keystore or of the configuration).

All keys have labels that begin with "keystoretest-" and are destroyed at the end; no
other key is touched. A token that already has such keys is refused; --clean destroys them
first, and makes another test that is running on the token fail. The module runs in
separate processes, so that a crash or a hang is a result. The test takes ten seconds with a
token in software, and minutes with a device that is slow to make RSA keys.

Each check is ok, missing (the module says that it does not have it) or wrong. The last
lines are a row for the table of modules in docs/hsm.md. The exit code is 1 if anything is
wrong, or if a server would refuse the token.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.flags.keystore = args[0]
			}
			return p.testModule(c.Context(), clean, asJSON, all)
		},
	}
	c.Flags().BoolVar(&clean, "clean", false, "first destroy the keys that an earlier test left behind")
	c.Flags().BoolVar(&all, "all", false, "print every check, including those that are ok")
	jsonFlag(c, &asJSON)
	return c
}

// moduleCheckCommand is for the program itself, which runs it for module test.
func moduleCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:    moduleCheckVerb,
		Hidden: true,
		Args:   want(),
		RunE: func(*cobra.Command, []string) error {
			if err := modulecheck.Serve(); err != nil {
				os.Exit(exit.Code(err)) // the other process reports why
			}
			return nil
		},
	}
}

func (p *program) testModule(ctx context.Context, clean, asJSON, all bool) error {
	c, err := p.configure()
	if err != nil {
		return err
	}
	check, err := keys.ModuleCheck(&c.Keystore, moduleCheckVerb)
	if err != nil {
		return err
	}
	if check.PIN != nil {
		defer check.PIN.Close()
	}
	ctx, stop := p.untilTold(ctx)
	defer stop()
	line := newProgress(p.stderr)
	check.Clean, check.Checked = clean, func(checks int) { line.tell("%d checks done", checks) }
	report, err := modulecheck.Run(ctx, check)
	line.clear()
	if ctx.Err() != nil {
		return exit.WithCode(fmt.Errorf("stopped; the keys of the test are destroyed"), exit.Failure)
	}
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("%w; correct the URI, or make such a token with msl-hsm token init", err)
	}
	if err != nil {
		return err
	}
	if err := printModule(p, report, asJSON, all); err != nil {
		return err
	}
	return moduleVerdict(report)
}

// printModule prints the groups, then everything that is not ok, then the row.
func printModule(p *program, report modulecheck.Report, asJSON, all bool) error {
	if asJSON {
		return printJSON(p.stdout, struct {
			modulecheck.Report
			Row string `json:"row"`
		}{report, report.Row()})
	}
	a := report.About
	fmt.Fprintf(p.stdout, "%s\nlibrary %s by %s, PKCS #11 %s; token %q, model %s, firmware %s, sessions: %s\n\n",
		exit.Printable(a.Module), exit.Printable(a.Library), exit.Printable(a.Manufacturer), a.Cryptoki, a.Token, exit.Printable(a.Model), a.Firmware, a.Sessions)
	err := list(p.stdout, false, report.Groups(), "CHECKS\tVERDICT\tOK\tMISSING\tWRONG", func(g modulecheck.Result) []any {
		n := func(v modulecheck.Verdict) int { return report.Count(g.Name, v) }
		return []any{g.Name, g.Verdict, n(modulecheck.OK), n(modulecheck.Missing), n(modulecheck.Wrong)}
	})
	if err != nil {
		return err
	}
	for _, r := range report.Results {
		if r.Verdict == modulecheck.Missing || r.Verdict == modulecheck.Wrong || all {
			fmt.Fprintln(p.stdout, exit.Printable(resultLine(r)))
		}
	}
	if names := report.OneSession(); len(names) > 0 {
		fmt.Fprintf(p.stdout, "not asked, since it needs two sessions and the token permits one: %s\n", strings.Join(names, ", "))
	}
	_, err = fmt.Fprintf(p.stdout, "\n%s\n%s\n", modulecheck.RowHead, report.Row())
	return err
}

// resultLine is one check on one line.
func resultLine(r modulecheck.Result) string {
	parts := []string{fmt.Sprintf("%s %s", r.Verdict, r.Name)}
	if detail := strings.Join(strings.Fields(r.Detail), " "); detail != "" {
		parts = append(parts, detail)
	}
	if r.Answer != "" && !strings.Contains(r.Detail, r.Answer) {
		parts = append(parts, r.Answer)
	}
	if r.Means != "" {
		parts = append(parts, "for a server: "+r.Means)
	}
	return strings.Join(parts, ": ")
}

// moduleVerdict is the error for a module that a server should not use as it is.
func moduleVerdict(report modulecheck.Report) error {
	if refused := report.Refused(); len(refused) > 0 {
		return exit.WithCode(fmt.Errorf("a server refuses this token for %s; see above for what this means", strings.Join(refused, ", ")), exit.Failure)
	}
	if n := report.Count("", modulecheck.Wrong); n > 0 {
		return exit.WithCode(fmt.Errorf("%d checks are wrong; see above for what they mean for a server", n), exit.Failure)
	}
	return nil
}
