package serverside

import (
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// The names of checks that several functions make.
const (
	auditName       = "audit log"
	enrollmentsName = "enrollments"
)

// A doctor collects what it finds.
type doctor struct {
	c     *config.Config
	used  *admin.Used // the keys the state was used with, if read
	found []Check
}

func (d *doctor) say(name string, v Verdict, format string, args ...any) {
	d.found = append(d.found, Check{name, v, fmt.Sprintf(format, args...)})
}

// judge reports that something works, or why not.
func (d *doctor) judge(name string, err error, format string, args ...any) bool {
	if err != nil {
		d.say(name, Failure, "%s", exit.OneLine(err))
		return false
	}
	d.say(name, OK, format, args...)
	return true
}
