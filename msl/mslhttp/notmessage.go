package mslhttp

import (
	"io"
	"mime"
)

// A NotMessageError is an HTTP response with status 200 that is a web page, not an MSL
// message: the server is not an MSL server.
type NotMessageError struct {
	Found string // "HTML"
}

// Error says what was found, and what to do about it.
func (e *NotMessageError) Error() string {
	return "mslhttp: the server answered " + e.Found + ", not MSL: check the URL"
}

// A message is the body of a response. It may have any media type except HTML: the
// reference stack sends none or a wrong one.
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
