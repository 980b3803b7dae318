package failurelog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Kind says what failed.
type Kind string

// The kinds of failures.
const (
	Device Kind = "device" // the HSM or TPM cannot be reached, or refuses to work
	Key    Kind = "key"    // a key is missing, lost, or not meant for this use
	Token  Kind = "token"  // an MSL token can no longer be opened
	Data   Kind = "data"   // something does not decrypt, unwrap or verify
)

// Other replaces a word that a newer sender uses and this version does not know.
const Other = "other"

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{Device, Key, Token, Data} }

// A Provider is a kind of key storage.
type Provider string

// The providers.
const (
	PKCS11   Provider = "pkcs11"
	TPM      Provider = "tpm"
	Software Provider = "soft"
)

// Providers lists every provider.
func Providers() []Provider { return []Provider{PKCS11, TPM, Software} }

// An Incident is what can be reported about a failure. It has no room for anything
// else: every text in it is from a fixed list.
type Incident struct {
	Kind       Kind     `json:"kind"`
	Provider   Provider `json:"provider,omitempty"`
	Operation  string   `json:"operation,omitempty"`  // C_Sign, TPM2_Load
	Result     string   `json:"result,omitempty"`     // CKR_DEVICE_ERROR, TPM_RC_FAILURE
	Cause      string   `json:"cause,omitempty"`      // the name in package keystore: see Causes
	Code       msl.Code `json:"code,omitempty"`       // the MSL error code, or 0
	Peer       bool     `json:"peer,omitempty"`       // the peer answered Code
	KeyVersion uint16   `json:"keyversion,omitempty"` // of the key concerned, if known
}

// A Failure is an incident, with how often it happened between two times on the
// sender's clock.
type Failure struct {
	Incident
	Count uint32    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// A Report is the data of a crypto failure log message.
type Report struct {
	Format   int       `json:"format"`            // 1
	Version  string    `json:"version,omitempty"` // of the sender's software: see CheckVersion
	Lost     uint32    `json:"lost,omitempty"`    // failures dropped for lack of room
	Skipped  uint32    `json:"skipped,omitempty"` // damaged lines of the spool
	Failures []Failure `json:"failures"`          // oldest first, 1 to 32
}

const (
	reportFormat = 1
	maxFailures  = 32
	maxReport    = 16 << 10 // bytes
	maxCode      = 99999    // of MSL, including unknown codes
)

// versionForm matches numbers, as in Semantic Versioning, and the Go command's version of
// a revision: there is no room for free text.
var versionForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^v?\d{1,5}(\.\d{1,5}){0,3}(-(alpha|beta|rc)\.?\d{0,3})?([-.](0\.)?\d{14}-[0-9a-f]{12})?(\+(dirty|incompatible))?$`)
})

// CheckVersion checks that a version of the software can be reported: numbers like 1.2.3,
// v1.2.3-rc1 or a pseudo-version of Go, of up to 64 bytes. No version and "devel" are
// accepted, too; any other is an error.
func CheckVersion(version string) error {
	if version == "" || version == "devel" || len(version) <= 64 && versionForm().MatchString(version) {
		return nil
	}
	return errors.New("failurelog: the software version must look like 1.2.3")
}

func (i Incident) check() error {
	switch {
	case i.Kind == "":
		return errors.New("no kind")
	case i != i.known():
		return errors.New("a word that is on no list")
	case i.Code < 0 || i.Code > maxCode:
		return errors.New("impossible code")
	}
	return nil
}

// known returns the incident with unknown words replaced by Other.
func (i Incident) known() Incident {
	if i.Kind != "" && !slices.Contains(Kinds(), i.Kind) {
		i.Kind = Other
	}
	if i.Provider != "" && !slices.Contains(Providers(), i.Provider) {
		i.Provider = Other
	}
	if i.Operation != "" && !operations()[i.Operation] {
		i.Operation = Other
	}
	if i.Result != "" && !results()[i.Result] {
		i.Result = Other
	}
	if i.Cause != "" && !slices.Contains(Causes(), i.Cause) {
		i.Cause = Other
	}
	return i
}

func (f Failure) check() error {
	switch {
	case f.Count == 0:
		return errors.New("no count")
	case f.First.Year() < 1970 || f.Last.Year() > 9999 || f.Last.Before(f.First):
		return errors.New("impossible times")
	}
	return f.Incident.check()
}

// plain truncates the times to seconds, in UTC.
func (f Failure) plain() Failure {
	f.First, f.Last = f.First.UTC().Truncate(time.Second), f.Last.UTC().Truncate(time.Second)
	return f
}

// Parse reads a report, and rejects invalid ones. Unknown members, from a newer sender,
// are dropped, and an unknown word becomes [Other].
func Parse(data []byte) (*Report, error) {
	r, err := parseReport(data)
	if err != nil {
		return nil, msl.Failure(msl.ErrPayloadDataCorrupt, "failure report", err)
	}
	return r, nil
}

func parseReport(data []byte) (*Report, error) {
	if len(data) > maxReport {
		return nil, fmt.Errorf("longer than %d bytes", maxReport)
	}
	r := &Report{}
	if err := decode(data, r, false); err != nil {
		return nil, err
	}
	switch {
	case r.Format != reportFormat:
		return nil, errors.New("unknown format")
	case len(r.Failures) == 0 || len(r.Failures) > maxFailures:
		return nil, fmt.Errorf("not 1 to %d failures", maxFailures)
	}
	if CheckVersion(r.Version) != nil {
		r.Version = Other
	}
	for n, f := range r.Failures {
		f.Incident = f.known()
		f = f.plain() // the year of a time depends on its zone
		if err := f.check(); err != nil {
			return nil, err
		}
		r.Failures[n] = f
	}
	return r, nil
}

// decode reads one JSON value; if strict, it rejects unknown members. Its errors quote
// nothing of the data.
func decode(data []byte, into any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(into); err != nil {
		return errors.New("not in the form of a report")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than a report")
	}
	return nil
}
