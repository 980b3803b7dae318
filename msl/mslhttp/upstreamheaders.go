package mslhttp

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
)

const userAgent = "msl-hsm"

type requestKey struct{}

// withRequest stores in the context of a message the HTTP request that carried it.
func withRequest(ctx context.Context, r *http.Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// headers returns the headers to send for a message: from r those that its sender may
// decide, and the rest.
func (u *Upstream) headers(m *msl.Message, r *http.Request) http.Header {
	h := make(http.Header, 16)
	u.addAllowed(h, r.Header)
	if h["User-Agent"] == nil {
		h["User-Agent"] = []string{userAgent}
	}
	addSender(h, m)
	if origin, ok := r.Context().Value(requestKey{}).(*http.Request); ok {
		u.addOrigin(h, origin)
	}
	u.addFixed(h)
	repeatsNothing(h, r.Method)
	return h
}

// repeatsNothing hides from net/http that a request may be repeated. When a connection
// ends, net/http repeats any request with an Idempotency-Key and without data, though the
// service may have acted on it and need not support that header. Names are
// case-insensitive (RFC 9110 section 5.1), but net/http looks for the canonical one.
func repeatsNothing(h http.Header, method string) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values := h[name]; values != nil {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

func addSender(h http.Header, m *msl.Message) {
	h["Msl-Entity"] = []string{EncodeName(m.Identity)}
	h["Msl-Message-Id"] = []string{strconv.FormatInt(m.MessageID, 10)}
	h["Msl-Encrypted"] = []string{strconv.FormatBool(m.Encrypted)}
	h["Msl-Authenticated"] = []string{strconv.FormatBool(m.Authenticated)}
	h["Msl-Non-Replayable"] = []string{strconv.FormatBool(m.NonReplayable)}
	if m.User != "" {
		h["Msl-User"] = []string{EncodeName(m.User)}
	}
	if m.Scheme != "" {
		h["Msl-Scheme"] = []string{EncodeName(m.Scheme)}
	}
}

func (u *Upstream) addOrigin(h http.Header, r *http.Request) {
	if ip, ok := u.Trusted.address(r); ok {
		address := []string{ip.String()}
		h["Msl-Client-Address"], h["X-Forwarded-For"] = address, address
	}
	if r.TLS == nil {
		return
	}
	if r.TLS.ServerName != "" {
		h["Msl-Tls-Server-Name"] = []string{EncodeName(r.TLS.ServerName)}
	}
	if len(r.TLS.PeerCertificates) > 0 {
		h["Msl-Tls-Client-Subject"] = []string{EncodeName(r.TLS.PeerCertificates[0].Subject.String())}
	}
}

// addFixed sets the headers that are the same in every request.
func (u *Upstream) addFixed(h http.Header) {
	for name, values := range u.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
}

// addAllowed adds what the sender may decide.
func (u *Upstream) addAllowed(h, given http.Header) {
	options := commaList(given["Connection"])
	for name, values := range given {
		plain := folded(name)
		named := func(other string) bool { return folded(other) == plain }
		refused := !isToken(name) || slices.ContainsFunc(values, isControlled) ||
			isReserved(plain) || isOfConnection(plain) || slices.ContainsFunc(options, named) || u.fixes(named)
		if !refused {
			h[http.CanonicalHeaderKey(name)] = values
		}
	}
}

// fixes reports whether a header of the configuration has that name.
func (u *Upstream) fixes(named func(string) bool) bool {
	for name := range u.Header {
		if named(name) {
			return true
		}
	}
	return false
}

// CheckHeaderName refuses a name that a header in [Upstream].Header cannot have: an
// invalid one, or one that says who sent a message or concerns a connection.
func CheckHeaderName(name string) error {
	plain := folded(name)
	switch {
	case !isToken(name):
		return fmt.Errorf("%q is not the name of an HTTP header", name)
	case isReserved(plain):
		return fmt.Errorf("the header %s is set only by the gateway", name)
	case isOfConnection(plain):
		return fmt.Errorf("the header %s is about a connection, and is set only by the HTTP client", name)
	}
	return nil
}

// checkFixed refuses headers that no request can have. Its errors do not contain their
// values.
func (u *Upstream) checkFixed() error {
	for name, values := range u.Header {
		if err := CheckHeaderName(name); err != nil {
			return fmt.Errorf("mslhttp: %w", err)
		}
		if slices.ContainsFunc(values, isControlled) {
			return fmt.Errorf("mslhttp: the value of the header %s has a line ending or another control character", name)
		}
	}
	return nil
}

// isToken reports whether a text is a token, as names of headers and methods are (RFC 9110
// section 5.6.2).
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool { return !isAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", c) })
}

func isAlphanumeric(c rune) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// isControlled reports whether the value of a header has a control character (RFC 9110
// section 5.5).
func isControlled(value string) bool {
	return strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// folded is the form in which two names are one for any service: CGI and WSGI make no
// difference between a hyphen and an underscore (RFC 3875 section 4.1.18), and some
// servers none between an underscore and any other sign.
func folded(name string) string {
	return strings.Map(func(c rune) rune {
		if !isAlphanumeric(c) {
			return '-'
		}
		return c
	}, strings.ToLower(strings.TrimSpace(name)))
}

// isReserved reports whether a header says who sent a message, or from where.
func isReserved(name string) bool {
	return strings.HasPrefix(name, "msl-") || strings.HasPrefix(name, "x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

// isOfConnection reports whether a header is about one connection (RFC 9110 section
// 7.6.1), or is set by the HTTP client.
func isOfConnection(name string) bool {
	switch name {
	case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "host", "content-length":
		return true
	}
	return strings.HasPrefix(name, "proxy-")
}

// EncodeName encodes the name of an entity or a user as the value of an HTTP header:
// everything except visible ASCII is percent-encoded, and so is the percent sign. No
// two names have the same encoding, and no name can end the header. To decode it, use
// PathUnescape of package net/url.
func EncodeName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
