package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// attachEnrollments puts the enrollments into a backup of the state.
func attachEnrollments(backup string, f *enroll.File) error {
	var content bytes.Buffer
	if err := f.Snapshot(&content); err != nil {
		return err
	}
	return bolt.Attach(backup, content.Bytes())
}

// copyEnrollments does it from the file that no server has open.
func copyEnrollments(c *config, backup string) error {
	if err := findEnrollments(c); err != nil {
		return err
	}
	f, err := enroll.OpenFile(c.Server.Enrollment.State)
	if err != nil {
		return err
	}
	return errors.Join(attachEnrollments(backup, f), f.Close())
}

// checkBackup reads all of a backup. The enrollments must be in it if there are any.
func checkBackup(c *config, path string) (r StateReport, err error) {
	if r.Summary, err = bolt.VerifyServer(path); err != nil {
		return r, err
	}
	content, err := bolt.Attached(path)
	switch {
	case err != nil:
		return r, err
	case content == nil && c.Server.Enrollment.State != "":
		return r, errors.New("the running server gave no enrollments: it runs another version or configuration; restart it, or stop it for the backup")
	case content == nil:
		return r, nil
	}
	r.Enrollments, err = enroll.CheckCopy(content)
	return r, err
}

// enrolled tells of the enrollments in a backup.
func enrolled(states map[enroll.State]int) string {
	if states == nil {
		return ""
	}
	n := 0
	for _, of := range states {
		n += of
	}
	return fmt.Sprintf("; %d enrollments", n)
}

// checkedEnrollments are those in a backup, or nil.
func checkedEnrollments(backup string) ([]byte, error) {
	content, err := bolt.Attached(backup)
	if err == nil && content != nil {
		_, err = enroll.CheckCopy(content)
	}
	return content, err
}

const restoredEnrollmentsText = `The enrollments are those of the backup: devices that were rejected or revoked since
then may talk to the server again. Check msl-hsm enrollment list, and decide again.
`

// restoreEnrollments puts them in the place of their file.
func restoreEnrollments(p *program, content []byte, path string) error {
	switch {
	case content == nil && path == "":
		return nil
	case content == nil:
		fmt.Fprintf(p.stderr, "the backup has no enrollments: %s stays as it is\n", path)
		return nil
	case path == "":
		fmt.Fprintln(p.stderr, "the backup has enrollments, but the configuration names no file for them, so they were left out; set server.enrollment.state, and restore again")
		return nil
	}
	aside, err := enroll.Restore(content, path)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "restored %s\n", path)
	if aside != "" {
		fmt.Fprintf(p.stdout, "what was there is in %s\n", aside)
	}
	_, err = fmt.Fprint(p.stdout, restoredEnrollmentsText)
	return err
}
