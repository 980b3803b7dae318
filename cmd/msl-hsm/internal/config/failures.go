package config

import (
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// FailureReports configures how a client reports its cryptographic failures.
type FailureReports struct {
	URL      string   `yaml:"url" example:"http://127.0.0.1:8080/failures"` // default: none
	Identity string   `yaml:"identity" example:"camera-1"`                  // name in the reports; default: client.identity, if set
	Spool    string   `yaml:"spool" example:"failures.spool"`               // keeps unsent reports; default: they are lost
	Report   []string `yaml:"report" example:"[device, key, token, data]"`  // default: every kind
}

// Failures configures the server's endpoint for crypto failure log messages.
type Failures struct {
	Log       string        `yaml:"log" example:"failures.jsonl"` // default: no reports are accepted
	Path      string        `yaml:"path"`                         // path of the URL
	Allow     string        `yaml:"allow"`                        // who may report: registered entities, or anyone
	Size      int64         `yaml:"size" example:"8388608"`       // bytes of a file before a new one begins; 0 means the default
	Age       time.Duration `yaml:"age" example:"168h"`           // age of a file before a new one begins
	Keep      int           `yaml:"keep" example:"8"`             // older files to keep
	PerSource int           `yaml:"per-source" example:"5"`       // reports per second from one address
	PerSecond int           `yaml:"per-second" example:"100"`     // reports per second in total
}

// noFailures returns the defaults, with which no reports are accepted.
func noFailures() Failures { return Failures{Path: "/failures", Allow: "registered"} }

// check requires a log if anything else is set, and a separate path for reports.
func (f *Failures) check() error {
	switch {
	case f.Log == "" && *f != noFailures():
		return exit.Usagef("server.failures has settings, and server.failures.log is not set: name the file, or leave them out")
	case f.Log == "":
		return nil
	case !isPath(f.Path) || f.Path == "/":
		return exit.Usagef("server.failures.path is %q: want one like /failures, since / is for messages", f.Path)
	}
	return nil
}
