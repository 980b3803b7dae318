package exit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
)

// packages are the Go packages whose errors begin with their name, which a user need not
// know.
const packages = `msl|mslhttp|httpform|keystore|wire|hsm|tpm|hostaes|makers|soft|softhsm|entityauth|userauth|keyx|mixed|isolated|balanced|split|lockedmem|modulecheck|state|bolt|boltkv|etcdkv|clusterkv|authkv|etcd|anchor|kv|secret|failurelog|auditlog|agent|enroll|identity|fleet|tlsalert|atomicfile|proxyproto|encoding/\w+|x509|asn1|tls|yaml|json|strconv\.\w+`

// withoutPackages removes package names before the parts of a message. Quoted text is a
// name, or what a peer said, and stays as it is; so does text attributed to the peer.
func withoutPackages(text string, peers ...string) string {
	kept := `"(?:[^"\\]|\\.)*"`
	for _, said := range peers {
		kept += `|(?:^|: |; |\()?` + regexp.QuoteMeta(said)
	}
	pattern := regexp.MustCompile(`(` + kept + `)|(^|: |; |\()(?:` + packages + `): `)
	for {
		shorter := pattern.ReplaceAllString(text, "$1$2")
		if shorter == text { // one name may follow another
			return text
		}
		text = shorter
	}
}

// saidByPeer returns the peer's text that an error repeats without quotation marks.
func saidByPeer(err error) (said []string) {
	var peer *msl.PeerError
	if !errors.As(err, &peer) {
		return nil
	}
	for _, text := range []string{peer.Message, peer.Identity} {
		if text != "" {
			said = append(said, Printable(text))
		}
	}
	return said
}

// Printable escapes control characters in names chosen by peers.
func Printable(s string) string {
	if s == "" {
		return "-"
	}
	return safetext.String(s)
}

// Count says how many there are of what one and several of are called.
func Count(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + several
}

// longestLine bounds what is said of an error, in bytes.
const longestLine = 2 << 10

// shortened leaves out the middle of a text that repeats something without end, such as an
// argument: its beginning says what is wrong, and its end what to do.
func shortened(text string) string {
	if len(text) <= longestLine {
		return text
	}
	begin, end := text[:longestLine/2], text[len(text)-longestLine/4:]
	return fmt.Sprintf("%s… (%d bytes) …%s", strings.ToValidUTF8(begin, ""), len(text)-len(begin)-len(end), strings.ToValidUTF8(end, ""))
}

// Quoted returns an argument quoted for a shell.
func Quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./:=+,@%", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Command is a verb of this program with an argument and flags, quoted for a shell.
func Command(verb, argument, flags string) string {
	if strings.HasPrefix(argument, "-") { // which is no flag
		return "msl-hsm " + verb + " " + flags + " -- " + Quoted(argument)
	}
	return "msl-hsm " + verb + " " + Quoted(argument) + " " + flags
}

// List writes names as an English list.
func List[T any](names []T) string {
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprint(name))
	}
	return strings.Join(all, ", ")
}

// ParseHex reads the hexadecimal value of a flag.
func ParseHex(flag, text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, Usagef("%s: want an even number of hexadecimal digits", flag)
	}
	return b, nil
}
