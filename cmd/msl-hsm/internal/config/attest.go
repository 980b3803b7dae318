package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Attest says when and where an agent attests its machine's state.
type Attest struct {
	Every    time.Duration `yaml:"every" example:"1h"`                              // give or take a tenth, and once when the agent starts; default: never
	URL      string        `yaml:"url" example:"http://server.example:8080/enroll"` // URL of the server's enrollment; default: /enroll at the host of client.url
	PCR      PCRList       `yaml:"pcr"`                                             // PCRs of the SHA-256 bank
	EventLog string        `yaml:"event-log" example:"/var/lib/boot.log"`           // file with the event log of this start, for a server that asks for it; default: the kernel's log, if this process may read it
}

// PCRList is a list of PCR numbers.
type PCRList []uint

// DefaultPCRs returns the PCRs of the firmware, its settings and the boot loader.
func DefaultPCRs() PCRList { return PCRList{0, 1, 2, 3, 4, 5, 6, 7} }

// UnmarshalYAML reads a list of numbers from 0 to 23.
func (l *PCRList) UnmarshalYAML(n *yaml.Node) error {
	*l = nil
	for _, item := range oneOrMore(n) {
		if err := oneReading(item); err != nil {
			return misplaced{item, err}
		}
		var index uint
		if item.ShortTag() != "!!int" || item.Decode(&index) != nil || index > 23 {
			return misplaced{item, fmt.Errorf("%q: want the number of a PCR, from 0 to 23", item.Value)}
		}
		*l = append(*l, index)
	}
	if len(*l) == 0 {
		return misplaced{n, fmt.Errorf("want the numbers of PCRs, such as [0, 2, 4, 7]")}
	}
	return nil
}

// Place returns the URL of the enrollment, by default at the host of the URL for messages.
func (a *Attest) Place(messages string) (string, error) {
	if a.URL != "" {
		return a.URL, nil
	}
	u, err := url.Parse(messages)
	if err != nil {
		return "", exit.Usagef("client.url: %w", err)
	}
	return u.Scheme + "://" + u.Host + "/enroll", nil
}

// check requires an interval of at least a second, and an HTTP URL.
func (a *Attest) check() error {
	if a.Every != 0 && a.Every < time.Second {
		return exit.Usagef("client.attest.every is %v: want at least 1s, such as 1h", a.Every)
	}
	if a.URL == "" {
		return nil
	}
	if err := checkWebURL("URL to attest at", a.URL, "http://HOST:PORT/enroll or https://HOST/enroll"); err != nil {
		return exit.Usagef("client.attest.url: %w", err)
	}
	return nil
}

// Check requires a TPM as the key store.
func (a *Attest) Check(keystore string) error {
	if a.Every != 0 && !strings.HasPrefix(keystore, "tpm:") {
		return exit.Usagef("client.attest.every is set, and the key store is not a TPM: give --keystore tpm:?state=FILE, or leave client.attest out")
	}
	return nil
}
