// Command msl-hsm runs an MSL server whose keys stay in an HSM, and talks to
// one: "msl-hsm help" lists its verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// A program is what every verb works with.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          rootFlags
	stop           *stopper // of a server or an agent, or nil
}

// rootFlags override the configuration for every verb.
type rootFlags struct {
	config, keystore, softhsm, pin string
}

// run does one command and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	stderr = safetext.Writer{W: stderr} // errors and logs quote peers
	if onTerminal(stdout) {
		stdout = safetext.Writer{W: stdout} // and so does most of what we print
	}
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintln(stderr, "msl-hsm:", oneLine(err))
	}
	return exitCode(err)
}

// oneLine writes errors that came together on one line, with what to do next.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(withNextStep(err)), "\n", "; ")
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "msl-hsm",
		Short: "MSL messages with keys that stay in an HSM",
		Long: "msl-hsm answers and sends messages of the Message Security Layer protocol.\n" +
			"Its keys stay in a PKCS #11 token or a TPM; for development in software.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	f := root.PersistentFlags()
	f.StringVar(&p.flags.config, "config", "", "configuration `FILE` (default $MSL_HSM_CONFIG, ./msl-hsm.yaml or /etc/msl-hsm/msl-hsm.yaml)")
	f.StringVar(&p.flags.keystore, "keystore", "", "key store `URI`: pkcs11:token=NAME?module-path=PATH, tpm:?state=FILE or soft:FILE")
	f.StringVar(&p.flags.softhsm, "softhsm", "", "directory `DIR` of a SoftHSM token for development")
	f.StringVar(&p.flags.pin, "pin", "", "`SOURCE` of the PIN: file:PATH, fd:N, credential:NAME or prompt")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(
		p.token(),
		group("key", "Make, import, list, show and destroy provisioned keys", p.keyCreate(), p.keyImport(), p.keyList(), p.keyShow(), p.keyRequest(), p.keyDestroy()),
		group("entity", "Register and revoke the entities that may talk to the server",
			p.entityAdd(), p.entityList(), p.entityShow(), p.entityRemove(), p.entityRevoke(), p.entityUnrevoke()),
		group("user", "Register the users who may log in", p.userAdd(), p.userList(), p.userPassword(), p.userRemove(), p.userRevoke(), p.userUnrevoke()),
		group("state", "Make, check, copy and put back the state file of a server",
			p.stateInit(), p.stateCheck(), p.stateBackup(), p.stateRestore(), p.statePrune(), p.stateCompact()),
		group("tpm", "Give this machine an identity that stays in its TPM",
			p.tpmInit(), p.tpmEnroll(), p.tpmStatus(), p.tpmRenew(), p.tpmQuote(), p.tpmStorage(), p.tpmImportPSK()),
		group("ca", "Make the CA of a fleet of devices", p.caInit()),
		group("enrollment", "Decide which devices with a TPM may talk to the server",
			p.enrollmentList(), p.enrollmentShow(),
			p.onDevice("approve", "Let a device enroll, whether it has applied already or not", "approved"),
			p.onDevice("reject", "Say no to a device", "rejected"), p.enrollmentRevoke(),
			p.onDevice("reinstate", "Let a rejected or revoked device apply again", "reinstated"),
			p.onDevice("remove", "Forget a device that was never enrolled", "removed"),
			p.enrollmentMerge(), p.enrollmentVerify(), p.enrollmentCRL()),
		p.serve(), p.send(), p.agent(), p.inspect(), p.errors(), p.alerts(), p.failures(), p.custody(), p.version(), exitCodes(),
	)
	onlyKnown(root)
	return root
}

// group is a command that has only sub-commands.
func group(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(verbs...)
	onlyKnown(c)
	return c
}

// onlyKnown makes a command without a verb of its own refuse unknown ones.
func onlyKnown(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		c.SuggestionsMinimumDistance = 2
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q; did you mean %q?", args[0], near[0])
		}
		return usagef("unknown command %q; see %s --help", args[0], c.CommandPath())
	}
}

// want checks the arguments of a verb against their names.
func want(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usagef("%s takes no arguments, but got %q", c.CommandPath(), args[0])
		}
		return usagef("%s takes %s: got %d of %d arguments", c.CommandPath(), strings.Join(names, " "), len(args), len(names))
	}
}

// atMost checks that there are no more than n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s takes %d argument at most, but got %d", c.CommandPath(), n, len(args))
		}
		return nil
	}
}

// closing joins the error of closing something to the error of using it.
func closing(err *error, c io.Closer) {
	*err = errors.Join(*err, c.Close())
}
