package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

func stateCompactCommand(p *program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "compact",
		Short: "Write the state file anew, without the room of what was removed",
		Long: `Writes the state file anew, without the room that removed records left, and puts it
in the place of the old one when it is checked and on the disk. Stop the server
before. It is seldom worth it: new records take the room.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			_, file, err := p.stateFile(path)
			if err != nil {
				return err
			}
			if err := admin.Stopped(file, "compact it"); err != nil {
				return err
			}
			before, after, err := bolt.CompactServer(file)
			if err == nil {
				fmt.Fprintf(p.stdout, "%s has %d bytes and had %d\n", file, after, before)
			}
			return admin.Unusable(file, err)
		},
	}
	stateFlag(c, &path)
	return c
}

func stateBackupCommand(p *program) *cobra.Command {
	var path string
	var force bool
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the state to a file, also while the server runs",
		Long: `Copies the state as it is at one moment, from a running server or from its file, and
checks the copy. The enrollments are in it, if the configuration names their file.
FILE appears when it is whole, with mode 0600. Keep it as the state itself: it has the
sealed keys of devices and the hashes of passwords.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, file, err := p.stateFile(path)
			if err != nil {
				return err
			}
			r, err := admin.BackupState(c, file, args[0], force)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "wrote %s: %d entities, %d users, %d bytes%s\n", args[0], r.Entities, r.Users, r.Bytes, admin.Enrolled(r.Enrollments))
			return nil
		},
	}
	stateFlag(c, &path)
	c.Flags().BoolVar(&force, "force", false, "take the place of a FILE that is there")
	return c
}

const restoredText = `Every token that was issued until now has ended, since messages of before could be
sent again under it: devices begin a new session by themselves, users log in again.
Entities, users and revocations are those of the backup. Look at msl-hsm entity list
and msl-hsm user list, and revoke again what was revoked since.
`

const restoredKeptText = `Tokens go on: messages that were recorded since the backup can be sent again, and what
was revoked since is not. Look at msl-hsm entity list and msl-hsm user list, and
revoke again what was revoked since. To end every token, restore without
--keep-tokens.
`

func stateRestoreCommand(p *program) *cobra.Command {
	var path string
	var keep, newKeys bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the state file",
		Long: `Checks a backup, and puts it in the place of the state file, and the enrollments in it
in the place of their file. What was there is kept beside it. Stop the server first.

A backup does not know what happened after it was made: which messages were taken,
which tokens renewed, who was revoked. So every token that was issued until now ends:
devices begin a new session by themselves, users log in again. With --keep-tokens
they go on, and messages that were recorded since can be sent again.

A backup that was used with other keys than those of the configuration is refused. If they
are lost for good, --new-keys takes it for those that are there: what the lost keys sealed,
such as pre-shared keys, is lost, and such entities have to be registered again.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, file, err := p.stateFile(path)
			if err != nil {
				return err
			}
			return admin.Tell(c, nil, "state restore", args[0], restoreState(p, c, args[0], file, keep, newKeys))
		},
	}
	stateFlag(c, &path)
	c.Flags().BoolVar(&keep, "keep-tokens", false, "let the tokens of before go on, and messages be replayed")
	newKeysFlag(c, &newKeys)
	return c
}

// newKeysFlag is for a state whose keys are lost.
func newKeysFlag(c *cobra.Command, newKeys *bool) {
	c.Flags().BoolVar(newKeys, "new-keys", false, "have the state belong to the keys that are there: those of before are lost, with the pre-shared keys of entities")
}

// restorable returns the enrollments in a backup, if no server has the state open, and the
// backup belongs to the keys, or is to belong to them from now on.
func restorable(p *program, r *admin.Restoring, backup, file string) (enrollments []byte, err error) {
	if admin.Absent(backup) {
		return nil, exit.Usagef("no backup %s: correct the path; msl-hsm state backup makes one", backup)
	}
	if info, err := os.Stat(backup); err == nil && info.IsDir() {
		return nil, exit.Usagef("%s is a directory: name the file of a backup", backup)
	}
	if err := admin.Stopped(file, "restore the backup"); err != nil {
		return nil, err
	}
	note, misfit := r.Fits()
	if note != "" {
		fmt.Fprintf(p.stderr, "%s\n", note)
	}
	if errors.Is(misfit, admin.ErrOtherKeys) {
		return nil, misfit
	}
	enrollments, err = r.Enrollments()
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed: name another backup", err)
	}
	return enrollments, misfit
}

func restoreState(p *program, c *config.Config, backup, file string, keepTokens, newKeys bool) (err error) {
	r := admin.BeginRestore(c, backup, newKeys)
	defer exit.Closing(&err, r)
	enrollments, err := restorable(p, r, backup, file)
	if err != nil {
		return err
	}
	done, err := r.State(file, keepTokens)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "restored %s: %d entities, %d users\n", file, done.Entities, done.Users)
	if done.Aside != "" {
		fmt.Fprintf(p.stdout, "what was there is in %s\n", done.Aside)
	}
	if err := restoreEnrollments(p, c, r, enrollments); err != nil {
		return fmt.Errorf("the state is restored, and the enrollments are not: %w", err)
	}
	text := restoredText
	if keepTokens {
		text = restoredKeptText
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}
