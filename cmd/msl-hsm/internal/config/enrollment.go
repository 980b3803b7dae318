package config

import (
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Enrollment lets devices with a TPM enroll at the server. Without a state
// file they cannot.
type Enrollment struct {
	State    string        `yaml:"state"`    // file of records
	Path     string        `yaml:"path"`     // of the URL
	CA       string        `yaml:"ca"`       // certificate file; empty: keys are only registered
	CAKey    string        `yaml:"ca-key"`   // its label in the key store
	Validity time.Duration `yaml:"validity"` // of certificates
	EKRoots  string        `yaml:"ek-roots"` // file of the manufacturers' certificates
	Allow    []string      `yaml:"allow"`    // EK hashes
	EKKinds  []string      `yaml:"ek-kinds"`
	Unknown  string        `yaml:"unknown"` // hold or refuse
	Monitor  bool          `yaml:"monitor"`
	Hold     bool          `yaml:"hold-changed"`
}

// CheckPath wants a path of its own for the messages of newcomers.
func (e *Enrollment) CheckPath() error {
	if !strings.HasPrefix(e.Path, "/") || e.Path == "/" || strings.ContainsAny(e.Path, "{} ?#%") {
		return exit.Usagef("server.enrollment.path is %q: want a path as /enroll", e.Path)
	}
	return nil
}
