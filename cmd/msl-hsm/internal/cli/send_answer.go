package cli

import (
	"io"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// writeAnswers returns the writer for the answer's data, which must not control a
// terminal.
func writeAnswers(p *program, raw bool) io.Writer {
	terminal, ok := p.stdout.(safetext.Writer)
	switch {
	case !ok:
		return p.stdout
	case raw:
		return terminal.W
	}
	return &safetext.Stream{W: terminal.W}
}

// An answerWriter remembers the last byte of the answer.
type answerWriter struct {
	w    io.Writer
	last byte
}

func (a *answerWriter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		a.last = p[len(p)-1]
	}
	return a.w.Write(p)
}

// closeRead closes something that was read to an error or to its end. An error from
// closing after a failed read says nothing new.
func closeRead(body io.Closer, err error) error {
	if closing := body.Close(); err == nil {
		return closing
	}
	return err
}
