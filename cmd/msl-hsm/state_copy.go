package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// stopped wants no server to have a state file open.
func stopped(path, what string) error {
	remote, err := dialServer(path)
	if err != nil || remote == nil {
		return err
	}
	return errors.Join(fmt.Errorf("a server has %s open: stop it, then %s", path, what), remote.Close())
}

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
			if err := stopped(file, "compact it"); err != nil {
				return err
			}
			before, after, err := bolt.CompactServer(file)
			if err == nil {
				fmt.Fprintf(p.stdout, "%s has %d bytes and had %d\n", file, after, before)
			}
			return unusable(file, err)
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
			r, err := backupState(c, file, args[0], force)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "wrote %s: %d entities, %d users, %d bytes%s\n", args[0], r.Entities, r.Users, r.Bytes, enrolled(r.Enrollments))
			return nil
		},
	}
	stateFlag(c, &path)
	c.Flags().BoolVar(&force, "force", false, "take the place of a FILE that is there")
	return c
}

// backupState writes a copy beside its name, and gives it the name when it is good.
func backupState(c *config, state, to string, force bool) (r StateReport, err error) {
	if err := checkTarget(state, to, force); err != nil {
		return r, err
	}
	f, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".part-*")
	if err != nil {
		return r, err
	}
	defer os.Remove(f.Name())
	err = errors.Join(copyState(c, state, f), f.Sync(), f.Close())
	if err != nil {
		return r, err
	}
	if r, err = checkBackup(c, f.Name()); err != nil {
		return r, err
	}
	if force {
		err = os.Rename(f.Name(), to)
	} else {
		err = os.Link(f.Name(), to) // which fails if another one is there by now
	}
	return r, errors.Join(err, syncDirectory(filepath.Dir(to)))
}

// syncDirectory makes new names in a directory durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func checkTarget(state, to string, force bool) error {
	own, errOwn := os.Stat(state)
	there, err := os.Stat(to)
	_, errLink := os.Lstat(to)
	switch {
	case errOwn == nil && err == nil && os.SameFile(own, there):
		return usagef("%s is the state file itself: name another one", to)
	case err == nil && !there.Mode().IsRegular():
		return usagef("%s is not a file: name one", to)
	case errLink == nil && !force:
		return usagef("%s already exists: name another file, or add --force", to)
	}
	return nil
}

// copyState copies the state of a running server, or of the file.
func copyState(c *config, state string, to *os.File) error {
	remote, err := dialServer(state)
	if err != nil {
		return err
	}
	if remote != nil {
		return errors.Join(remote.copyState(to), remote.Close())
	}
	s, err := openState(c, state)
	if err != nil {
		return err
	}
	err = errors.Join(s.Snapshot(to), s.Close())
	if err != nil || c.Server.Enrollment.State == "" {
		return err
	}
	return copyEnrollments(c, to.Name())
}

// copyState fetches the copy that the server makes beside its state.
func (r *runningServer) copyState(to io.Writer) error {
	var name string
	if err := r.callLong("Keeper.Snapshot", struct{}{}, &name); err != nil {
		return fromServer(err)
	}
	path := filepath.Join(filepath.Dir(r.state), filepath.Base(name))
	defer os.Remove(path)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
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
	var keep bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the state file",
		Long: `Checks a backup, and puts it in the place of the state file, and the enrollments in it
in the place of their file. What was there is kept beside it. Stop the server first.

A backup does not know what happened after it was made: which messages were taken,
which tokens renewed, who was revoked. So every token that was issued until now ends:
devices begin a new session by themselves, users log in again. With --keep-tokens
they go on, and messages that were recorded since can be sent again.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, file, err := p.stateFile(path)
			if err != nil {
				return err
			}
			return restoreState(p, c, args[0], file, keep)
		},
	}
	stateFlag(c, &path)
	c.Flags().BoolVar(&keep, "keep-tokens", false, "let the tokens of before go on, and messages be replayed")
	return c
}

func restoreState(p *program, c *config, backup, file string, keepTokens bool) error {
	if absent(backup) {
		return usagef("no backup %s", backup)
	}
	if err := stopped(file, "restore the backup"); err != nil {
		return err
	}
	enrollments, err := checkedEnrollments(backup)
	if err != nil {
		return err
	}
	r, err := bolt.RestoreServer(backup, file, keepTokens)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "restored %s: %d entities, %d users\n", file, r.Entities, r.Users)
	if r.Aside != "" {
		fmt.Fprintf(p.stdout, "what was there is in %s\n", r.Aside)
	}
	if err := restoreEnrollments(p, enrollments, c.Server.Enrollment.State); err != nil {
		return fmt.Errorf("the state is restored, and the enrollments are not: %w", err)
	}
	text := restoredText
	if keepTokens {
		text = restoredKeptText
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}
