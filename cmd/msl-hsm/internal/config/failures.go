package config

import (
	"time"
)

// FailureReports is how a client reports its crypto failures.
type FailureReports struct {
	URL      string   `yaml:"url"`      // empty: none are reported
	Identity string   `yaml:"identity"` // default: the client's
	Spool    string   `yaml:"spool"`    // file
	Report   []string `yaml:"report"`   // kinds; default: every one
}

// Failures is the server's endpoint for crypto failure log messages.
type Failures struct {
	Log       string        `yaml:"log"`   // file; empty: no endpoint
	Path      string        `yaml:"path"`  // of the URL
	Allow     string        `yaml:"allow"` // registered or anyone
	Size      int64         `yaml:"size"`  // bytes of one file
	Age       time.Duration `yaml:"age"`
	Keep      int           `yaml:"keep"` // files
	PerSource int           `yaml:"per-source"`
	PerSecond int           `yaml:"per-second"`
}
