package config

import (
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Enrollment lets devices with a TPM enroll at the server. Without a state
// file they cannot.
type Enrollment struct {
	State    string        `yaml:"state" example:"enrollments.db"`                                                     // evidence of the devices, and decisions about them
	Path     string        `yaml:"path"`                                                                               // of the URL
	CA       string        `yaml:"ca" example:"ca.pem"`                                                                // from msl-hsm ca init; default: keys are registered without certificates
	CAKey    string        `yaml:"ca-key" example:"msl-ca"`                                                            // label of the CA's key
	Validity time.Duration `yaml:"validity" example:"8760h"`                                                           // of certificates
	EKRoots  string        `yaml:"ek-roots" example:"tpm-makers.pem"`                                                  // makers whose EK certificates admit a device at once
	Allow    []string      `yaml:"allow" example:"[6dac2c1fac10bea0b4686829987739d53819c6d92d12e062227437754d6047e3]"` // EK hashes that are admitted, too
	EKKinds  []string      `yaml:"ek-kinds" example:"[rsa2048]"`                                                       // accepted endorsement keys: rsa2048, p256, p384; default: all
	Unknown  string        `yaml:"unknown"`                                                                            // all others wait for an operator; or refuse
	Monitor  bool          `yaml:"monitor"`                                                                            // admit every device, and record which would not have been
	Hold     bool          `yaml:"hold-changed"`                                                                       // a known device with new keys waits for an operator
}

// CheckPath wants a path of its own for the messages of newcomers.
func (e *Enrollment) CheckPath() error {
	if !strings.HasPrefix(e.Path, "/") || e.Path == "/" || strings.ContainsAny(e.Path, "{} ?#%") {
		return exit.Usagef("server.enrollment.path is %q: want a path as /enroll", e.Path)
	}
	return nil
}
