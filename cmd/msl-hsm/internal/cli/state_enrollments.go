package cli

import (
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

const restoredEnrollmentsText = `The enrollments are those of the backup: devices that were rejected or revoked since
then may talk to the server again. Check msl-hsm enrollment list, and decide again.
`

// restoreEnrollments replaces the file of enrollments with the restored ones.
func restoreEnrollments(p *program, c *config.Config, r *admin.Restoring, content []byte) error {
	path := c.Server.Enrollment.File()
	switch {
	case content == nil && path == "":
		return nil
	case content == nil:
		fmt.Fprintf(p.stderr, "the backup has no enrollments: %s is unchanged\n", path)
		return nil
	case path == "":
		fmt.Fprintln(p.stderr, "the backup has enrollments, but the configuration names no file for them, so they were left out; set server.enrollment.state, and restore again")
		return nil
	}
	aside, err := r.ReplaceEnrollments(content, path)
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
