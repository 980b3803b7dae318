package msl

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

func numberNote(name string, n int64) string {
	switch name {
	case "timestamp", "renewalwindow", "expiration":
		return seconds(n).UTC().Format(time.RFC3339)
	case "errorcode":
		return ResponseCode(n).String()
	case "internalcode":
		if code := codeNumbered(n); code.Name() != "" {
			return code.Name() + ": " + code.Text()
		}
		return "an application's own"
	}
	return ""
}

// WriteText writes parts for a person to read, indented.
func WriteText(w io.Writer, parts []Part) error {
	for _, p := range parts {
		if err := p.write(w, 0); err != nil {
			return err
		}
	}
	return nil
}

func (p Part) write(w io.Writer, depth int) error {
	line := strings.Repeat("  ", depth) + safetext.String(p.Name)
	if p.Value != nil {
		line += ": " + printable(p.Value)
	}
	if p.Note != "" {
		line += "  (" + safetext.String(p.Note) + ")"
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return err
	}
	for _, inner := range p.Parts {
		if err := inner.write(w, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// printable keeps a peer's control characters off the terminal, and quotes a text that
// contains any.
func printable(v any) string {
	text := fmt.Sprint(v)
	if safe := safetext.String(text); safe != text {
		return strconv.Quote(text)
	}
	return text
}
