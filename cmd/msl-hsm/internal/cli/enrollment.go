package cli

import (
	"errors"
	"fmt"

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
	if !c.Server.Enrollment.On() {
		return exit.Usagef("devices cannot enroll here: set server.enrollment.state in the configuration")
	}
	own := admin.KeysOf(c)
	defer exit.Closing(&err, own)
	all, err := own.Enrollments(signs)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, all)
	return warned(p, own, do(all))
}

// find looks up a record by the start of an EK hash, or by the name of a device.
func find(s admin.Enrollments, what string) (enroll.Record, error) {
	found, err := s.Find(what)
	switch {
	case errors.Is(err, enroll.ErrUnknown):
		return enroll.Record{}, fmt.Errorf("no device %q: %w; msl-hsm enrollment list shows the devices", exit.Printable(what), enroll.ErrUnknown)
	case err != nil:
		return enroll.Record{}, err
	case len(found) > 1:
		return enroll.Record{}, exit.Usagef("several devices begin with %q: give more of the EK hash", what)
	}
	return found[0], nil
}

// completeID finds an enrolled device, or accepts a complete EK hash of one that is yet
// to enroll.
func completeID(s admin.Enrollments, what string) (string, error) {
	if id, err := enroll.ParseID(what); err == nil {
		return id.String(), nil
	}
	r, err := find(s, what)
	return r.ID.String(), err
}

// pageSize is how many records are in memory at a time.
const pageSize = 250
