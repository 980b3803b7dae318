package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// A progressLine, which may be nil, is a line on a terminal that shows the progress of
// something slow. It shows nothing in the first two seconds, nor without a terminal:
// scripts never see it.
type progressLine struct {
	screen io.Writer // nil if nothing is shown
	now    func() time.Time

	mu           sync.Mutex
	began, drawn time.Time
}

const (
	quiet  = 2 * time.Second
	redraw = 200 * time.Millisecond
)

// clearLine moves to the beginning of a terminal line and clears it (ECMA-48, EL).
const clearLine = "\r\x1b[K"

// newProgress returns a progress line that begins now, if log is a terminal.
func newProgress(log io.Writer) *progressLine {
	g := &progressLine{now: time.Now, began: time.Now()}
	if onTerminal(log) {
		g.screen = log
		if safe, ok := log.(safetext.Writer); ok {
			g.screen = safe.W // which would show the control characters
		}
	}
	return g
}

// slowOn shows on a terminal what takes longer than two seconds, until done is called. Without
// a terminal it says once what takes longer than ten.
func slowOn(log io.Writer) func(what string) (done func()) {
	return func(what string) (done func()) {
		line, shown, wait := newProgress(log), make(chan struct{}), quiet
		tell := func() { line.tell("%s", what) }
		if line.screen == nil {
			tell, wait = func() { fmt.Fprintln(log, "msl-hsm:", what) }, 10*time.Second
		}
		timer := time.AfterFunc(wait, func() {
			tell()
			close(shown)
		})
		return func() {
			if !timer.Stop() {
				<-shown
			}
			line.clear()
		}
	}
}

// tell rewrites the line. Its text must be short, and come from this program.
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

// clear removes the line, if it is shown, to make way for other text or at the end.
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
