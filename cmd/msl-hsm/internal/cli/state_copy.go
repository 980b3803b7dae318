package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

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
		Short: "Rewrite the state file without the space of removed records",
		Long: `Rewrites the state file without the space that removed records left, and replaces the
old file once the new one is checked and on disk. Stop the server first. This is
seldom worthwhile: new records reuse the space.`,
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
		Long: `Copies a snapshot of the state, from a running server or from its file, and checks the
copy. It includes the enrollments if the configuration names their file. FILE appears
only when it is complete, with mode 0600. Protect it like the state itself: it has the
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
			fmt.Fprintf(p.stdout, "wrote %s: %s, %s, %d bytes%s\n", args[0], exit.Count(r.Entities, "entity", "entities"), exit.Count(r.Users, "user", "users"), r.Bytes, admin.Enrolled(r.Enrollments))
			return nil
		},
	}
	stateFlag(c, &path)
	c.Flags().BoolVar(&force, "force", false, "replace an existing FILE")
	return c
}

const restoredText = `Every token that was issued until %s has ended, since messages of
before could be sent again under it: devices begin a new session by themselves, users log
in again. If that time is wrong, correct the clock here and restore the backup again.
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
		Short: "Replace the state file with a backup",
		Long: `Checks a backup, and replaces the state file with it, and the file of enrollments with
those in the backup. The old files are kept beside the new ones. Stop the server first.

A backup does not know what happened after it was made: which messages were accepted,
which tokens renewed, who was revoked. So every token issued until now ends: devices
begin a new session on their own, and users log in again. With --keep-tokens, tokens
stay valid, and messages recorded since then can be replayed.

A backup that was used with keys other than those of the configuration is refused. If
those keys are lost for good, --new-keys binds it to the present ones: pre-shared keys and
anything else that the lost keys sealed is lost, and the entities with such keys have to
be registered again.`,
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
	c.Flags().BoolVar(&keep, "keep-tokens", false, "keep older tokens valid, and let messages be replayed")
	newKeysFlag(c, &newKeys)
	return c
}

// newKeysFlag is for a state whose keys are lost.
func newKeysFlag(c *cobra.Command, newKeys *bool) {
	c.Flags().BoolVar(newKeys, "new-keys", false, "bind the state to the present keys: the earlier ones are lost, and with them the pre-shared keys of entities")
}

// restorable returns the enrollments in a backup, if no server has the state open, and
// the backup belongs to the keys, or will belong to them from now on.
func restorable(p *program, r *admin.Restoring, backup, file string) (enrollments []byte, err error) {
	if admin.Absent(backup) {
		return nil, exit.Usagef("no backup %s: correct the path; msl-hsm state backup makes one", backup)
	}
	if info, err := os.Stat(backup); err == nil && info.IsDir() {
		return nil, exit.Usagef("%s is a directory: name the file of a backup", backup)
	}
	if same(backup, file) {
		return nil, exit.Usagef("%s is the state file itself: name a backup, which msl-hsm state backup makes; to end every token of this state, restore such a backup of it", backup)
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

func same(a, b string) bool {
	one, errOne := os.Stat(a)
	other, errOther := os.Stat(b)
	return errOne == nil && errOther == nil && os.SameFile(one, other)
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
	fmt.Fprintf(p.stdout, "restored %s: %s, %s\n", file, exit.Count(done.Entities, "entity", "entities"), exit.Count(done.Users, "user", "users"))
	if done.Aside != "" {
		fmt.Fprintf(p.stdout, "what was there is in %s\n", done.Aside)
	}
	if err := restoreEnrollments(p, c, r, enrollments); err != nil {
		return fmt.Errorf("the state is restored, and the enrollments are not: %w", err)
	}
	if keepTokens {
		_, err = fmt.Fprint(p.stdout, restoredKeptText)
	} else {
		_, err = fmt.Fprintf(p.stdout, restoredText, done.Ended.UTC().Format(time.RFC3339))
	}
	return err
}
