package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// Run executes one command and returns its exit code.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	defer func() { // a call that took too long may go on
		resume, _ := uncut.Wait(uncut.Most)
		resume()
	}()
	return runWith(config.Default, args, stdin, stdout, stderr)
}

// runWith executes a command whose configuration starts with the given defaults.
func runWith(defaults func() *config.Config, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	_ = isolated.Hide() // PINs, passwords and keys; where an open store counts on it, an error is a warning
	outliveReaders()
	stdin, stdout = present(stdin, stdout)
	stderr = safetext.Writer{W: stderr} // errors and logs quote peers
	printed := &printer{w: stdout}
	if onTerminal(stdout) {
		stdout = safetext.Writer{W: stdout} // as does most other output
	} else {
		stdout = printed
	}
	p := &program{defaults: defaults, stdin: stdin, stdout: stdout, stderr: stderr, signalsTaken: leaveNothing()}
	defer p.signalsTaken()
	if log, err := p.logger(serveFlags{logFormat: "auto"}); err == nil {
		captureLog(p, log)
	}
	root := rootCommand(p)
	if len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		completer{p}.completeNames(root)
		completeChoices(root)
		unquoteUsage(root)
	}
	if verb, _, err := root.Find(args); err == nil {
		decimalFlags(verb)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil || printed.err != nil && only(err, printed.err) {
		err = printed.lost()
	}
	if printed.unread(err) {
		return exit.Unread
	}
	p.signalsTaken() // what fails because a signal ends the command needs no explanation
	if err != nil {
		fmt.Fprintln(stderr, "msl-hsm:", exit.OneLine(err))
	}
	return exit.Code(err)
}

// A printer is standard output that is not a terminal. It records what could not be
// printed, so that no command succeeds whose output is missing.
type printer struct {
	w   io.Writer
	err error
}

// Write implements io.Writer. After the first error it always returns that.
func (p *printer) Write(b []byte) (n int, err error) {
	if p.err == nil {
		n, p.err = p.w.Write(b)
	}
	return n, p.err
}

// lost is the error of a command for which nothing went wrong except printing.
func (p *printer) lost() error {
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("the output was lost: %w: check what was done, and write the output somewhere else", p.err)
}

// unread reports whether the only problem is that nobody reads the output anymore, as
// with head.
func (p *printer) unread(err error) bool {
	return errors.Is(p.err, syscall.EPIPE) && only(err, p.err)
}

// only reports whether an error is another one, and says nothing else.
func only(err, other error) bool {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(part error) bool { return !only(part, other) })
	case interface{ Unwrap() error }:
		return err == other || only(e.Unwrap(), other)
	}
	return err == other
}

func rootCommand(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:   "msl-hsm",
		Short: "MSL messages with keys that stay in an HSM",
		Long: "msl-hsm answers and sends messages of the Message Security Layer protocol.\n" +
			"Its keys stay in a PKCS #11 token or a TPM, or in software for development.",
		Version:       readBuild().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	f := root.PersistentFlags()
	f.StringVar(&p.flags.config, "config", "", "configuration `FILE` (default $MSL_HSM_CONFIG, ./msl-hsm.yaml or /etc/msl-hsm/msl-hsm.yaml)")
	f.StringVar(&p.flags.keystore, "keystore", "", "key store `URI`: pkcs11:token=NAME?module-path=PATH, tpm:?state=FILE or soft:FILE")
	f.StringVar(&p.flags.softhsm, "softhsm", "", "directory `DIR` of a SoftHSM token for development")
	f.StringVar(&p.flags.pin, "pin", "", "`SOURCE` of the PIN: file:PATH, fd:N, credential:NAME or prompt")
	f.StringVar(&p.flags.owner, "owner-password", "", "`SOURCE` of the password of the TPM's owner hierarchy, if it has one")
	f.StringVar(&p.flags.endorsement, "endorsement-password", "", "`SOURCE` of the password of the TPM's endorsement hierarchy, if it has one")
	f.StringVar(&p.flags.lockout, "lockout-password", "", "`SOURCE` of the password of the TPM's lockout hierarchy, if it has one")
	root.PersistentPreRunE = noneEmpty
	root.SetFlagErrorFunc(wrongFlag)
	root.AddCommand(
		tokenCommand(p), ceremonyCommand(p), moduleCommand(p), moduleCheckCommand(),
		group("key", "Make, import, export, list, show, rotate, trust, rewrap, retire and destroy provisioned keys", keyCreateCommand(p), keyImportCommand(p), keyExportCommand(p), keyListCommand(p), keyShowCommand(p), keyRequestCommand(p), keyRotateCommand(p), keyTrustCommand(p), keyRewrapCommand(p), keyRetireCommand(p), keyDestroyCommand(p)),
		group("entity", "Register and revoke the entities that may talk to the server",
			entityAddCommand(p), entityListCommand(p), entityShowCommand(p), entityRemoveCommand(p), entityRevokeCommand(p), entityUnrevokeCommand(p)),
		group("user", "Register users who may log in", userAddCommand(p), userListCommand(p), userPasswordCommand(p), userRemoveCommand(p), userRevokeCommand(p), userUnrevokeCommand(p)),
		group("state", "Make, check, back up and restore the state file of a server",
			stateInitCommand(p), stateCheckCommand(p), stateBackupCommand(p), stateRestoreCommand(p), statePruneCommand(p), stateCompactCommand(p), stateSignCommand(p), stateExportCommand(p), stateImportCommand(p)),
		group("config", "Check a configuration", configCheckCommand(p)),
		group("admin", "Look at a running server, and make it read its configuration again", adminReloadCommand(p), adminStatusCommand(p), adminPageCommand(p), adminMetricsCommand(p)),
		group("audit", "Verify the audit log of a server", auditVerifyCommand(p), auditKeyCommand(p)),
		group("session", "Show and end the sessions that a device has with its servers", sessionListCommand(p), sessionLogoutCommand(p), sessionForgetCommand(p)),
		group("tpm", "Give this machine an identity that stays in its TPM",
			tpmInitCommand(p), tpmEnrollCommand(p), tpmStatusCommand(p), tpmRenewCommand(p), tpmQuoteCommand(p), tpmStorageCommand(p), tpmImportPSKCommand(p), tpmUnlockCommand(p)),
		group("ca", "Make the CA of a fleet of devices", caInitCommand(p)),
		group("enrollment", "Decide which devices with a TPM may talk to the server",
			enrollmentListCommand(p), enrollmentShowCommand(p),
			onDeviceCommand(p, "approve", "Let a device enroll, whether it has applied already or not", "approved"),
			onDeviceCommand(p, "reject", "Reject a device", "rejected"), enrollmentRevokeCommand(p),
			onDeviceCommand(p, "reinstate", "Let a rejected or revoked device apply again", "reinstated"),
			onDeviceCommand(p, "remove", "Forget a device that was never enrolled", "removed"),
			enrollmentMergeCommand(p), enrollmentVerifyCommand(p), enrollmentLearnCommand(p), enrollmentQuoteCommand(p), enrollmentCRLCommand(p), enrollmentMakersCommand(p), enrollmentExportCommand(p), enrollmentImportCommand(p)),
		serveCommand(p), sendCommand(p), channelCommand(p), agentCommand(p), inspectCommand(p), errorsCommand(p), alertsCommand(p), failuresCommand(p), custodyCommand(p), versionCommand(p), exitCodes(), doctorCommand(p), isolatedCommand(), manCommand(),
	)
	root.SetVersionTemplate(readBuild().String())
	root.SetIn(p.stdin)
	root.SetOut(p.stdout) // which the completion command takes over when it is made
	root.SetErr(p.stderr)
	onlyKnown(root)
	strict(root)
	return root
}
