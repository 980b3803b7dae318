package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// A progressLine, which may be nil, is a line on a terminal that tells how far something is that takes long. Nothing
// is told in the first two seconds, nor where there is no terminal: no script sees it.
type progressLine struct {
	screen io.Writer // or nil
	now    func() time.Time

	mu           sync.Mutex
	began, drawn time.Time
}

const (
	quiet  = 2 * time.Second
	redraw = 200 * time.Millisecond
)

// clearLine goes to the beginning of a line of a terminal and clears it (ECMA-48, EL).
const clearLine = "\r\x1b[K"

// newProgress returns one that begins now, where log is a terminal.
func newProgress(log io.Writer) *progressLine {
	g := &progressLine{now: time.Now, began: time.Now()}
	if onTerminal(log) {
		g.screen = log
		if safe, ok := log.(safetext.Writer); ok {
			g.screen = safe.W // which would show the controls
		}
	}
	return g
}

// tell rewrites the line. Its text must be short, and of this program.
func (g *progressLine) tell(format string, args ...any) {
	if g == nil || g.screen == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if now.Sub(g.began) < quiet || now.Sub(g.drawn) < redraw {
		return
	}
	g.drawn = now
	fmt.Fprintf(g.screen, clearLine+format+" …", args...)
}

// clear removes the line, if it is there, for other text or at the end.
func (g *progressLine) clear() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.drawn.IsZero() {
		io.WriteString(g.screen, clearLine)
		g.drawn = time.Time{}
	}
}
