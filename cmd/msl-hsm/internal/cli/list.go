package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(safetext.Writer{W: w})
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// list prints a table with a line for each item, or the items as JSON.
func list[T any](w io.Writer, asJSON bool, items []T, head string, row func(T) []any) error {
	l := &listing[T]{w: w, asJSON: asJSON, head: head, row: row}
	return errors.Join(l.add(items), l.end())
}

// A listing is a list whose items come in parts. The columns of a table fit each part.
type listing[T any] struct {
	w      io.Writer
	asJSON bool
	head   string
	row    func(T) []any
	parts  int
	items  int
}

func (l *listing[T]) add(items []T) error {
	l.parts++
	if l.asJSON {
		return l.addJSON(items)
	}
	t := tabwriter.NewWriter(l.w, 0, 0, 2, ' ', 0)
	if l.parts == 1 {
		fmt.Fprintln(t, l.head)
	}
	for _, item := range items {
		cells := l.row(item)
		line := make([]string, len(cells))
		for i, cell := range cells {
			line[i] = exit.Printable(fmt.Sprint(cell))
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(line, "\t"), "\t"))
	}
	return t.Flush()
}

// addJSON writes items of an unfinished array in the form of printJSON.
func (l *listing[T]) addJSON(items []T) error {
	for _, item := range items {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetIndent("  ", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(item); err != nil {
			return err
		}
		before := ",\n  "
		if l.items == 0 {
			before = "[\n  "
		}
		l.items++
		if _, err := fmt.Fprintf(safetext.Writer{W: l.w}, "%s%s", before, bytes.TrimSuffix(text.Bytes(), []byte("\n"))); err != nil {
			return err
		}
	}
	return nil
}

// end ends an array.
func (l *listing[T]) end() (err error) {
	switch {
	case l.asJSON && l.items == 0:
		_, err = fmt.Fprintln(l.w, "[]")
	case l.asJSON:
		_, err = fmt.Fprintln(l.w, "\n]")
	}
	return err
}

// onTerminal reports whether w writes to a terminal.
func onTerminal(w io.Writer) bool {
	if safe, ok := w.(safetext.Writer); ok {
		w = safe.W
	}
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func status(revoked, removed bool) string {
	switch {
	case revoked:
		return "revoked"
	case removed:
		return "removed"
	}
	return "registered"
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}
