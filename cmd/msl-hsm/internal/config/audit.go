package config

import (
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Audit is the log of who did what at a server, signed by a key of the key store.
type Audit struct {
	File     string        `yaml:"file" example:"/var/lib/msl-hsm/audit.jsonl"` // check it with msl-hsm audit verify; commands that act without the server write to the same name with .commands
	Required bool          `yaml:"required"`                                    // refuse messages while the log cannot be written or signed; false: serve them and log the failure
	Size     int64         `yaml:"size" example:"67108864"`                     // bytes of a file before a new one begins; 0 means the default
	Records  int           `yaml:"records" example:"4096"`                      // records per signature, at most
	Interval time.Duration `yaml:"interval" example:"10s"`                      // time until a record is covered by a signature, at most
}

// check requires a file if anything else is set.
func (a *Audit) check() error {
	if a.File == "" && *a != (Audit{}) {
		return exit.Usagef("server.audit has settings, and server.audit.file is not set: name the file, or leave them out")
	}
	return nil
}
