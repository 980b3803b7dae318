package mslhttp

import (
	"io"
	"mime"
)

// A NotMessageError is an HTTP response of status 200 that is no MSL message, but a
// web page: what answered is no MSL server.
type NotMessageError struct {
	Found string // "HTML"
}

// Error tells what was found, and what to do about it.
func (e *NotMessageError) Error() string {
	return "mslhttp: the server answered " + e.Found + ", not MSL: check the URL"
}

// A message is the body of a response. It may be of any media type but HTML: the
// reference stack names none, or a wrong one.
type message struct {
	io.ReadCloser
	mediaType string
	begun     bool
}

func (m *message) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	if m.begun || n == 0 {
		return n, err
	}
	m.begun = true
	if kind, _, _ := mime.ParseMediaType(m.mediaType); p[0] == '<' || kind == "text/html" && p[0] != '{' {
		return 0, &NotMessageError{"HTML"}
	}
	return n, err
}
