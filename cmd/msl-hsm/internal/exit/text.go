package exit

import (
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// packages are the Go packages whose errors begin with their name, and which a user need
// not know.
const packages = `msl|mslhttp|keystore|wire|hsm|tpm|soft|softhsm|entityauth|userauth|keyx|mixed|isolated|state|bolt|boltkv|etcdkv|etcd|anchor|kv|secret|failurelog|agent|enroll|identity|fleet|tlsalert|atomicfile|proxyproto|encoding/\w+|x509|asn1|tls|yaml|json|strconv\.\w+`

// withoutPackages removes the names of packages before the parts of a message. What is in
// quotation marks is a name, or what a peer said, and stays as it is.
func withoutPackages(text string) string {
	pattern := regexp.MustCompile(`("(?:[^"\\]|\\.)*")|(^|: |; |\()(?:` + packages + `): `)
	for {
		shorter := pattern.ReplaceAllString(text, "$1$2")
		if shorter == text { // one name may follow another
			return text
		}
		text = shorter
	}
}

// Printable escapes control characters in names chosen by peers.
func Printable(s string) string {
	if s == "" {
		return "-"
	}
	return safetext.String(s)
}

// Quoted returns an argument as a shell takes it.
func Quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./:=+,@%", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ParseHex reads the hexadecimal value of a flag.
func ParseHex(flag, text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, Usagef("%s: want hexadecimal digits: %w", flag, err)
	}
	return b, nil
}
