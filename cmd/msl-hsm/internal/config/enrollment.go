package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

// Enrollment lets devices with a TPM enroll at the server, if State is set.
type Enrollment struct {
	State    string        `yaml:"state" example:"enrollments.db"`                                                        // evidence of the devices, and decisions about them: a file, or etcd if server.state is there
	Path     string        `yaml:"path"`                                                                                  // path of the URL
	CA       string        `yaml:"ca" example:"ca.pem"`                                                                   // from msl-hsm ca init; default: keys are registered without certificates
	CAKey    string        `yaml:"ca-key" example:"msl-ca"`                                                               // label of the CA's key
	Validity time.Duration `yaml:"validity" example:"8760h"`                                                              // of certificates
	EKRoots  RootList      `yaml:"ek-roots" example:"[makers, tpm-makers.pem]"`                                           // makers of TPMs whose EK certificates admit a device immediately: makers for those built in, or files
	Devices  RootList      `yaml:"device-roots" example:"[device-makers.pem]"`                                            // files of makers of devices whose certificates for initial attestation keys (IAK) in the TPM admit a device immediately
	Expired  Verdict       `yaml:"ek-expired"`                                                                            // hold: devices with expired certificates wait for an operator; or accept
	Allow    []string      `yaml:"allow" example:"[6dac2c1fac10bea0b4686829987739d53819c6d92d12e062227437754d6047e3]"`    // EK hashes that are also admitted
	EKKinds  []string      `yaml:"ek-kinds" example:"[rsa2048]"`                                                          // accepted endorsement keys: rsa2048, p256, p384, rsa3072, p521; default: all
	Unknown  string        `yaml:"unknown"`                                                                               // hold: all other devices wait for an operator; or refuse
	Monitor  bool          `yaml:"monitor"`                                                                               // admit every device, and record which would not have been admitted
	Rate     float64       `yaml:"rate" example:"25"`                                                                     // enrollments per second, of all devices together; others are asked to try again
	Waiting  int           `yaml:"waiting" example:"1000"`                                                                // maximum number of devices waiting for an operator
	PCR      PCRValues     `yaml:"pcr" example:"\n0: [9b4dd1ab0d6d2e1b2fa4f2a1b0c39c6d0d8f1f6b1d3d6cbb6b0ae2a6f0b6a1d2]"` // allowed values of PCRs of the SHA-256 bank when a device enrolls or renews; with any other value it waits for an operator, or is refused with unknown: refuse; msl-hsm enrollment learn prints this setting; default: any value
	OnChange OnChange      `yaml:"on-change"`                                                                             // what happens to an enrolled device that proves, by client.attest, a state that pcr does not allow: flag marks it in enrollment list; or revoke
	EventLog EventLogs     `yaml:"event-log" example:"boot-events.json"`                                                  // ask: request the event log of their start from devices that prove PCRs; or files of msl-hsm enrollment learn --events: also show which event differs from theirs; a log decides nothing; default: request no logs
	Hold     bool          `yaml:"hold-changed"`                                                                          // whether a known device with new keys waits for an operator
}

// inEtcd is the value for records stored beside the state of the servers.
const inEtcd = "etcd"

// On reports whether devices enroll.
func (e *Enrollment) On() bool { return e.State != "" }

// Shared reports whether the records are in the etcd cluster of the state.
func (e *Enrollment) Shared() bool { return e.State == inEtcd }

// File returns the path of the file of records, or "" if they are elsewhere.
func (e *Enrollment) File() string {
	if e.Shared() {
		return ""
	}
	return e.State
}

func (e *Enrollment) settle(dir string) {
	if !e.Shared() {
		e.State = within(dir, e.State)
	}
	e.CA = within(dir, e.CA)
	e.EKRoots.settle(dir)
	e.Devices.settle(dir)
	e.EventLog.settle(dir)
}

// noEnrollment returns the defaults, with which no device can enroll.
func noEnrollment() Enrollment {
	return Enrollment{Path: "/enroll", Unknown: "hold", Expired: VerdictHold, OnChange: ChangeFlag}
}

// check refuses revocation without PCR rules, and settings for enrollment if no device can
// enroll.
func (e *Enrollment) check() error {
	switch {
	case e.OnChange == ChangeRevoke && len(e.PCR) == 0:
		return exit.Usagef("server.enrollment.on-change is revoke, and without server.enrollment.pcr every state is allowed: set pcr to what msl-hsm enrollment learn prints, or leave on-change out")
	case e.On():
		return errors.Join(e.CheckPath(), e.checkNames())
	case e.Hold, e.Monitor, e.Waiting != 0, e.Rate != 0, len(e.PCR) > 0, len(e.Allow) > 0, e.Unknown != noEnrollment().Unknown, e.Path != noEnrollment().Path:
		return exit.Usagef("server.enrollment has settings, and server.enrollment.state is not set, so that no device can enroll: name the file, or leave them out")
	}
	return e.checkNames()
}

// checkNames accepts only known kinds of endorsement keys.
func (e *Enrollment) checkNames() error {
	if slices.Contains(e.Devices, Makers) {
		return exit.Usagef("server.enrollment.device-roots: makers are those of TPMs: name files with the certificates of makers of devices")
	}
	for _, text := range e.Allow {
		if _, err := enroll.ParseID(text); err != nil {
			return exit.Usagef("server.enrollment.allow: %w", err)
		}
	}
	for _, kind := range e.EKKinds {
		if all := enroll.EKKinds(); !slices.Contains(all, enroll.EKKind(kind)) {
			return exit.Usagef("server.enrollment.ek-kinds: unknown EK %q: want one of %s", kind, exit.List(all))
		}
	}
	return nil
}

// CheckPath requires a separate path for enrollment messages.
func (e *Enrollment) CheckPath() error {
	if !isPath(e.Path) || e.Path == "/" {
		return exit.Usagef("server.enrollment.path is %q: want a path such as /enroll", e.Path)
	}
	return nil
}

// A RootList names the sources of makers' certificates.
type RootList []string

// Makers is the value for the certificates built into the program.
const Makers = "makers"

// UnmarshalYAML reads the word makers or a file, or a list of them.
func (l *RootList) UnmarshalYAML(n *yaml.Node) error {
	return decodeFiles(n, (*[]string)(l), "makers, a file, or a list of them, such as [makers, extra.pem]")
}

func (l RootList) settle(dir string) { settleFiles(dir, l, Makers) }

// An EKService names a maker's service for certificates of endorsement keys, in the form that
// makers.ParseService reads.
type EKService string

// UnmarshalYAML reads the name of a maker, and perhaps a URL.
func (s *EKService) UnmarshalYAML(n *yaml.Node) error {
	if _, err := makers.ParseService(n.Value); err != nil {
		return misplaced{n, err}
	}
	*s = EKService(n.Value)
	return nil
}

// EventLogs is the word ask, or files with the events of reference devices.
type EventLogs []string

// Ask is the value that requests event logs without comparing them.
const Ask = "ask"

// UnmarshalYAML reads the word, a file, or a list of files.
func (l *EventLogs) UnmarshalYAML(n *yaml.Node) error {
	return decodeFiles(n, (*[]string)(l), "ask, a file, or a list of files")
}

// Files returns the files, without the word.
func (l EventLogs) Files() []string {
	return slices.DeleteFunc(slices.Clone(l), func(name string) bool { return name == Ask })
}

func (l EventLogs) settle(dir string) { settleFiles(dir, l, Ask) }

// decodeFiles reads the name of a file, or a list of them, where one may be a word instead.
func decodeFiles(n *yaml.Node, files *[]string, want string) error {
	for _, item := range oneOrMore(n) {
		if item.Kind != yaml.ScalarNode || item.Value == "" {
			return misplaced{item, fmt.Errorf("must be %s", want)}
		}
		*files = append(*files, item.Value)
	}
	return nil
}

func settleFiles(dir string, files []string, word string) {
	for i, name := range files {
		if name != word {
			files[i] = within(dir, name)
		}
	}
}

// PCRValues are values that PCRs may have, in hexadecimal, by the index of the PCR.
type PCRValues map[uint][]string

// UnmarshalYAML reads a value or a list of them for each index.
func (v *PCRValues) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return misplaced{n, fmt.Errorf("must have a line for each PCR, such as 7: [HEX, HEX]")}
	}
	*v = PCRValues{}
	for i := 0; i < len(n.Content); i += 2 {
		key, list := n.Content[i], n.Content[i+1]
		if err := oneReading(key); err != nil {
			return misplaced{key, err}
		}
		index, err := strconv.ParseUint(key.Value, 10, 8)
		if err != nil || index > 23 {
			return misplaced{key, fmt.Errorf("%q: want the number of a PCR, from 0 to 23", key.Value)}
		}
		for _, item := range oneOrMore(list) {
			if raw, err := hex.DecodeString(item.Value); err != nil || len(raw) != sha256.Size {
				return misplaced{item, fmt.Errorf("%q: want the 64 hexadecimal digits of a PCR of the SHA-256 bank", item.Value)}
			}
			(*v)[uint(index)] = append((*v)[uint(index)], item.Value)
		}
		if len((*v)[uint(index)]) == 0 {
			return misplaced{key, fmt.Errorf("PCR %d may have no value: leave it out", index)}
		}
	}
	return nil
}

// A Verdict says what happens to devices with expired certificates.
type Verdict string

// The verdicts.
const (
	VerdictHold   Verdict = "hold"
	VerdictAccept Verdict = "accept"
)

// OnChange says what happens to a device that leaves the policy.
type OnChange string

// The values of OnChange.
const (
	ChangeFlag   OnChange = "flag"
	ChangeRevoke OnChange = "revoke"
)

// UnmarshalYAML reads one of the names.
func (o *OnChange) UnmarshalYAML(n *yaml.Node) error {
	switch got := OnChange(n.Value); got {
	case ChangeFlag, ChangeRevoke:
		*o = got
		return nil
	}
	return misplaced{n, fmt.Errorf("%q: want %s or %s", n.Value, ChangeFlag, ChangeRevoke)}
}

// UnmarshalYAML reads one of the names.
func (v *Verdict) UnmarshalYAML(n *yaml.Node) error {
	switch got := Verdict(n.Value); got {
	case VerdictHold, VerdictAccept:
		*v = got
		return nil
	}
	return misplaced{n, fmt.Errorf("%q: want %s or %s", n.Value, VerdictHold, VerdictAccept)}
}
