package httpform

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// mostFields is how many header fields a head may have: each takes a hundred bytes of
// memory, however short it is.
const mostFields = 256

// checkRequestHead checks a head that ends with an empty line.
func checkRequestHead(head []byte) error {
	line, fields, err := cutLine(head)
	if err != nil {
		return err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[2] != "HTTP/1.1" {
		return &FormError{"the first line is not METHOD TARGET HTTP/1.1"}
	}
	if target := parts[1]; !isOriginForm(target) {
		return &FormError{"the target is not a path that begins with a slash"}
	}
	seen, err := checkFields(fields)
	if err == nil && seen["host"] != 1 {
		err = &FormError{"there must be exactly one Host"}
	}
	return err
}

// isOriginForm reports whether a target is a path, optionally with a query, of visible
// ASCII (RFC 9112, section 3.2.1).
func isOriginForm(target string) bool {
	return strings.HasPrefix(target, "/") && !strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' })
}

// checkResponseHead is checkRequestHead for a response. An interim response (RFC 9110,
// section 15.2) is not allowed in the form.
func checkResponseHead(head []byte) error {
	line, fields, err := cutLine(head)
	if err != nil {
		return err
	}
	code, found := strings.CutPrefix(line, "HTTP/1.1 ")
	code, reason, spaced := strings.Cut(code, " ")
	status, err := strconv.ParseUint(code, 10, 16)
	if !found || !spaced || len(code) != 3 || err != nil || !isText(reason) {
		return &FormError{"the first line is not HTTP/1.1 STATUS REASON"}
	}
	if status < 200 {
		return &FormError{"status " + code + " is not that of a final response"}
	}
	_, err = checkFields(fields)
	return err
}

// cutLine cuts the first line off a head that is not too long.
func cutLine(head []byte) (line string, rest []byte, err error) {
	if len(head) > MostHead {
		err = &FormError{"the head has more than " + strconv.Itoa(MostHead) + " bytes"}
	}
	before, rest, _ := bytes.Cut(head, []byte("\r\n"))
	return string(before), rest, err
}

// checkFields checks header fields, and counts those that the framing depends on.
// Continuation lines, lines that end without CR, and names with a space before their
// colon are errors, since parsers differ about them (RFC 9112, sections 2.2, 5.1 and
// 5.2).
func checkFields(fields []byte) (seen map[string]int, err error) {
	seen = map[string]int{}
	lines := strings.Split(strings.TrimSuffix(string(fields), "\r\n\r\n"), "\r\n")
	if string(fields) == "\r\n" {
		lines = nil
	}
	if len(lines) > mostFields {
		return nil, &FormError{"the head has more than " + strconv.Itoa(mostFields) + " fields"}
	}
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) || !isText(value) {
			return nil, &FormError{"a line of the head is not NAME: VALUE"}
		}
		name = strings.ToLower(name)
		if framing[http.CanonicalHeaderKey(name)] {
			seen[name]++
		}
		if name == "transfer-encoding" && strings.Trim(value, " \t") != "chunked" {
			return nil, &FormError{"the only transfer coding is chunked"}
		}
	}
	if seen["content-length"]+seen["transfer-encoding"] > 1 {
		return nil, &FormError{"the body has more than one length"}
	}
	return seen, nil
}

// isToken reports whether a name is valid for a method or a header field (RFC 9110,
// section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c < 0x7f && strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
}

// isText reports whether a value has no control characters except tabs.
func isText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// hopByHop is the fields that belong to one connection (RFC 9110, section 7.6.1; RFC
// 9112, appendix C.2.2), and those that this package writes itself.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect", "Host", "Content-Length",
}

// EndToEnd returns those fields of a header that may be passed on: not those that belong
// to one connection, nor those that Connection names, nor those of MSL, in any of the
// spellings that a service may take for them (Msl_User becomes HTTP_MSL_USER, too).
func EndToEnd(h http.Header) http.Header {
	to := h.Clone()
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			to.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if !Passes(name) {
			delete(to, name)
		}
	}
	return to
}

// Passes reports whether a header field of that name may be passed on at all.
func Passes(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	if slices.Contains(hopByHop, name) {
		return false
	}
	return !strings.HasPrefix(name, "Msl-")
}
