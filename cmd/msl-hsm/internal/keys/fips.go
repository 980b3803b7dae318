package keys

import (
	"crypto/fips140"
	"fmt"
)

// A FIPS is the FIPS 140-3 mode of Go in which this process runs: that of GODEBUG=fips140.
// It says nothing about an HSM or a TPM, which have certificates of their own.
type FIPS struct {
	Mode   string `json:"mode"`   // off, on, or only
	Module string `json:"module"` // version of the Go Cryptographic Module, or latest
}

// FIPSOf returns the mode of this process.
func FIPSOf() FIPS {
	f := FIPS{Mode: "off", Module: fips140.Version()}
	switch {
	case fips140.Enforced():
		f.Mode = "only"
	case fips140.Enabled():
		f.Mode = "on"
	}
	return f
}

// Frozen reports whether the module is one of those that go into validation, and not that
// of the newest source of Go.
func (f FIPS) Frozen() bool { return f.Module != "latest" }

// String returns mode and version.
func (f FIPS) String() string {
	return fmt.Sprintf("%s (Go Cryptographic Module %s)", f.Mode, f.Module)
}
