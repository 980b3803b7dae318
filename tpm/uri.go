package tpm

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A URI names a TPM, the file with its keys, and one of them. It has the form of an
// RFC 7512 URI:
//
//	tpm:[object=label][?attribute=value[&attribute=value]…]
//
// The attributes are
//
//	device=/dev/tpmrm0   a character device; default
//	unix=/path           a Unix socket that carries plain TPM commands, as of swtpm
//	tcp=host:port        the same over TCP; never between machines
//	state=/path          the file of key blobs, see Init
//	srk=0x81000001       the persistent handle of the storage key: where Init makes it, and
//	                     where it is looked for first
//	timeout=2m           how long one command may take before the TPM counts as dead
//
// with at most one of device, unix and tcp. Most TPMs behind a socket, and devices without a
// resource manager, such as /dev/tpm0, serve one process at a time while others wait; a
// [Device] gives them their turn. Characters other than
// letters, digits and -._~:/@,+ are percent-encoded.
type URI struct {
	Object  string // label of a provisioned key
	Device  string
	Unix    string
	TCP     string
	State   string
	SRK     uint32        // 0: the default
	Timeout time.Duration // 0: the default
}

const (
	defaultDevice  = "/dev/tpmrm0"
	defaultTimeout = 2 * time.Minute // a chip may take this long for an RSA key
	defaultSRK     = 0x81000001      // TCG TPM v2.0 Provisioning Guidance
)

// ParseURI reads a tpm: URI. Unknown attributes are errors.
func ParseURI(s string) (*URI, error) {
	rest, ok := strings.CutPrefix(s, "tpm:")
	if !ok {
		return nil, fmt.Errorf("tpm: URI does not start with %s", "tpm:")
	}
	path, query, _ := strings.Cut(rest, "?")
	u := &URI{}
	if err := parseAttributes(path, ";", map[string]func(string) error{"object": text(&u.Object)}); err != nil {
		return nil, err
	}
	err := parseAttributes(query, "&", map[string]func(string) error{
		"device": absolute(&u.Device), "unix": absolute(&u.Unix), "state": absolute(&u.State),
		"tcp": u.setTCP, "srk": u.setSRK, "timeout": u.setTimeout,
	})
	if err != nil {
		return nil, err
	}
	if (u.Device != "" && u.Unix != "") || (u.TCP != "" && u.Device+u.Unix != "") {
		return nil, fmt.Errorf("tpm: URI has more than one of device, unix and tcp")
	}
	return u, nil
}

func parseAttributes(s, separator string, known map[string]func(string) error) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(s, separator) {
		name, raw, _ := strings.Cut(part, "=")
		set := known[name]
		switch {
		case strings.Contains(name, "pin"):
			return fmt.Errorf("tpm: URI has an attribute %q: secrets do not belong in a URI", name)
		case set == nil:
			return fmt.Errorf("tpm: URI has an unknown attribute %q", name)
		case seen[name]:
			return fmt.Errorf("tpm: URI has two attributes %q", name)
		}
		seen[name] = true
		value, err := unescape(raw)
		if err == nil && value == "" {
			err = errors.New("it has no value")
		}
		if err != nil {
			return fmt.Errorf("tpm: URI attribute %q: %w", name, err)
		}
		if err := set(value); err != nil {
			return fmt.Errorf("tpm: URI attribute %q: %w", name, err)
		}
	}
	return nil
}

const uriPlain = "-._~:/@,+ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func unescape(s string) (string, error) {
	for _, c := range []byte(s) {
		if c != '%' && strings.IndexByte(uriPlain, c) < 0 {
			return "", fmt.Errorf("character %q must be written %%%02X", c, c)
		}
	}
	return url.PathUnescape(s)
}

func text(to *string) func(string) error {
	return func(s string) error {
		*to = s
		return nil
	}
}

func absolute(to *string) func(string) error {
	return func(s string) error {
		if !filepath.IsAbs(s) || strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("%q is not an absolute path without zero bytes", s)
		}
		*to = s
		return nil
	}
}

func (u *URI) setTCP(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%q is not host:port", s)
	}
	u.TCP = s
	return nil
}

func (u *URI) setSRK(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil || n>>24 != 0x81 {
		return fmt.Errorf("%q is not a persistent handle, such as 0x81000001", s)
	}
	u.SRK = uint32(n)
	return nil
}

func (u *URI) setTimeout(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a time such as 90s", s)
	}
	u.Timeout = d
	return nil
}

// String writes the URI that ParseURI reads.
func (u *URI) String() string {
	var query []string
	add := func(name, value string) {
		if value != "" {
			query = append(query, name+"="+escape(value))
		}
	}
	add("device", u.Device)
	add("unix", u.Unix)
	add("tcp", u.TCP)
	add("state", u.State)
	if u.SRK != 0 {
		add("srk", fmt.Sprintf("%#x", u.SRK))
	}
	if u.Timeout != 0 {
		add("timeout", u.Timeout.String())
	}
	s := "tpm:"
	if u.Object != "" {
		s += "object=" + escape(u.Object)
	}
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(uriPlain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
