package cli

import (
	"fmt"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// withEnrollments runs a verb on the records. Verbs that sign need the CA's key.
func (p *program) withEnrollments(signs bool, do func(admin.Enrollments) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if c.Server.Enrollment.State == "" {
		return exit.Usagef("devices cannot enroll here: set server.enrollment.state in the configuration")
	}
	all, err := admin.OpenEnrollments(c, signs)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, all)
	return do(all)
}

// find looks up a record by the start of an EK hash, or by the name of a device.
func find(all []enroll.Record, what string) (enroll.Record, error) {
	var found []enroll.Record
	for _, r := range all {
		if r.Name == what || r.ID.String() == what {
			return r, nil
		}
		if len(what) >= 6 && strings.HasPrefix(r.ID.String(), what) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return enroll.Record{}, fmt.Errorf("no device %q: %w; msl-hsm enrollment list shows the devices", exit.Printable(what), enroll.ErrUnknown)
	case 1:
		return found[0], nil
	}
	return enroll.Record{}, exit.Usagef("%d devices begin with %q: give more of the EK hash", len(found), what)
}

// completeID finds an enrolled device, or accepts a complete EK hash of one that is yet
// to enroll.
func completeID(s admin.Enrollments, what string) (string, error) {
	if _, err := enroll.ParseID(what); err == nil {
		return what, nil
	}
	all, err := s.Records()
	if err != nil {
		return "", err
	}
	r, err := find(all, what)
	return r.ID.String(), err
}
