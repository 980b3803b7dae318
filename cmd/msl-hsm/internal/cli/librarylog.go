package cli

import (
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/logsample"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// captureLog writes the lines of package log, which only libraries use, in the form of a
// log on standard error. Most come from net/http, whose clients have no log of their own.
func captureLog(p *program, to *slog.Logger) {
	if w, safe := p.stderr.(safetext.Writer); !safe || w.W != os.Stderr {
		return // already written there
	}
	log.SetFlags(0)
	log.SetOutput(libraryLog{slog.New(logsample.New(to.Handler()))})
}

// A libraryLog logs lines without the text that they quote: net/http quotes what a
// service sends after its answer, which is the rest of the answer if its Content-Length
// was too small.
type libraryLog struct{ log *slog.Logger }

// Write logs a line.
func (l libraryLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if what, _, quotes := strings.Cut(text, " starting with "); quotes {
		text = what + ": the other side sent more than its answer, perhaps by a Content-Length that is too small"
	} else if at := strings.IndexByte(text, '"'); at >= 0 {
		text = text[:at] + "…"
	}
	l.log.Warn("network library", "error", text)
	return len(line), nil
}
