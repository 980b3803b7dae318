package cli

import (
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/logsample"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// captureLog has the lines of package log, which only libraries use, in the form of a log on
// standard error. Above all that is net/http, whose clients have no log of their own.
func captureLog(p *program, to *slog.Logger) {
	if w, safe := p.stderr.(safetext.Writer); !safe || w.W != os.Stderr {
		return // that is where they go
	}
	log.SetFlags(0)
	log.SetOutput(libraryLog{slog.New(logsample.New(to.Handler()))})
}

// A libraryLog logs lines without what they quote: net/http quotes what a service sends after
// its answer, which is the rest of that if its Content-Length was too small.
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
