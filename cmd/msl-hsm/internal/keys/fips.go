package keys

import (
	"crypto/fips140"
	"fmt"
)

// A FIPS is Go's FIPS 140-3 mode in which this process runs, from GODEBUG=fips140. It
// says nothing about an HSM or a TPM, which have their own certificates.
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

// Frozen reports whether the module is one submitted for validation, instead of the one
// in the current Go source.
func (f FIPS) Frozen() bool { return f.Module != "latest" }

// String returns mode and version.
func (f FIPS) String() string {
	return fmt.Sprintf("%s (Go Cryptographic Module %s)", f.Mode, f.Module)
}
