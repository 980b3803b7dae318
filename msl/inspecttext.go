package msl

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

func numberNote(name string, n int64) string {
	switch name {
	case "timestamp", "renewalwindow", "expiration":
		return seconds(n).UTC().Format(time.RFC3339)
	case "errorcode":
		return ResponseCode(n).String()
	case "internalcode":
		return strings.TrimSpace(Code(n-internalBase).Name() + ": " + Code(n-internalBase).Text())
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
	line := strings.Repeat("  ", depth) + p.Name
	if p.Value != nil {
		line += ": " + printable(p.Value)
	}
	if p.Note != "" {
		line += "  (" + p.Note + ")"
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

// printable keeps control characters of a peer off the terminal.
func printable(v any) string {
	text, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return strconv.Quote(text)
		}
	}
	return text
}
