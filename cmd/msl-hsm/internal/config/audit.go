package config

import (
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Audit is the log of who did what at a server, signed by a key of the key store.
type Audit struct {
	File     string        `yaml:"file" example:"/var/lib/msl-hsm/audit.jsonl"` // msl-hsm audit verify verifies it; commands that act without the server write to the same name with .commands
	Required bool          `yaml:"required"`                                    // refuse messages while it cannot be written or signed; false serves them and logs the failure
	Size     int64         `yaml:"size" example:"67108864"`                     // bytes of a file before another one begins; 0 is the default
	Records  int           `yaml:"records" example:"4096"`                      // records after which a signature is made
	Interval time.Duration `yaml:"interval" example:"10s"`                      // time after which a record is covered by a signature
}

// check wants a file, if anything else is set.
func (a *Audit) check() error {
	switch {
	case a.File == "" && *a != Audit{}:
		return exit.Usagef("server.audit has settings, and server.audit.file is not set: name the file, or leave them out")
	case a.Size < 0:
		return exit.Usagef("server.audit.size is less than nothing")
	case a.Records < 0:
		return exit.Usagef("server.audit.records is less than nothing")
	case a.Interval < 0:
		return exit.Usagef("server.audit.interval is less than nothing")
	}
	return nil
}
