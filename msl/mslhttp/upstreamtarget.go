package mslhttp

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A Target is a place where the service of an [Upstream] runs. [ParseTarget] makes it.
type Target struct {
	URL    *url.URL // http or https; its path and query precede those of each request
	Socket string   // path of the Unix socket to connect to instead of the URL's host; empty means none
}

// ParseTarget reads http://HOST/PATH, https://HOST/PATH, unix:SOCKET or
// unix:SOCKET:/PATH, where SOCKET is the path of a Unix socket. A URL may have a user and
// a password, which are sent by the scheme Basic. No error contains the password.
func ParseTarget(text string) (Target, error) {
	if socket, ok := strings.CutPrefix(text, "unix:"); ok {
		return parseSocket(strings.TrimPrefix(socket, "//"), text)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" || !ValidPort(u) {
		return Target{}, noTarget(text)
	}
	return Target{URL: u}, nil
}

// ValidPort reports whether the port of a URL is valid or absent: package url accepts any
// number.
func ValidPort(u *url.URL) bool {
	number, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil && number > 0
}

func parseSocket(socket, text string) (Target, error) {
	socket, path, _ := strings.Cut(socket, ":")
	u, err := url.Parse("http://localhost" + path)
	if err != nil || socket == "" || path != "" && path[0] != '/' || u.Fragment != "" {
		return Target{}, noTarget(text)
	}
	return Target{URL: u, Socket: socket}, nil
}

func noTarget(text string) error {
	if at := strings.LastIndex(text, "@"); at >= 0 { // what is before it may be a password
		text = "…" + text[at:]
	}
	return fmt.Errorf("%q: want http://HOST/PATH, https://HOST/PATH, unix:SOCKET or unix:SOCKET:/PATH", text)
}

// String returns the target in the form that [ParseTarget] reads, without a password.
func (t Target) String() string {
	switch {
	case t.URL == nil:
		return ""
	case t.Socket == "":
		return t.URL.Redacted()
	}
	text := "unix:" + t.Socket
	if strings.HasPrefix(t.Socket, "//") {
		text = "unix://" + t.Socket
	}
	if t.URL.Path != "" {
		text += ":" + t.URL.RequestURI()
	}
	return text
}

// check refuses a target that was not made by ParseTarget.
func (t Target) check() error {
	if t.URL == nil || t.URL.Host == "" {
		return errors.New("mslhttp: target of an upstream without a host")
	}
	return nil
}

// address is the URL of a request with that path and query.
func (t Target) address(r *url.URL) *url.URL {
	if r == nil || r.Path == "" && r.RawQuery == "" {
		return t.URL
	}
	u := *t.URL
	if r.Path != "" {
		u.Path = joinPath(u.Path, r.Path)
		u.RawPath = joinPath(t.URL.EscapedPath(), r.EscapedPath())
	}
	switch {
	case u.RawQuery == "":
		u.RawQuery = r.RawQuery
	case r.RawQuery != "":
		u.RawQuery += "&" + r.RawQuery
	}
	return &u
}

// joinPath joins two paths with one slash, and leaves everything else in them unchanged.
func joinPath(a, b string) string {
	return strings.TrimSuffix(a, "/") + "/" + strings.TrimPrefix(b, "/")
}

// authorize replaces any credentials that the sender of the message wrote with the user
// and the password of the target.
func (t Target) authorize(r *http.Request) {
	if user := t.URL.User; user != nil {
		password, _ := user.Password()
		r.Header = r.Header.Clone() // other attempts share it
		r.SetBasicAuth(user.Username(), password)
	}
}

// healthURL is the URL of a health check, whose path [CheckHealthPath] accepts.
func (t Target) healthURL(path string) string {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return ""
	}
	return t.address(u).String()
}
