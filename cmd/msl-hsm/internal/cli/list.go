package cli

import (
	"encoding/json"
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
	if asJSON {
		if items == nil {
			items = []T{}
		}
		return printJSON(w, items)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, item := range items {
		cells := row(item)
		line := make([]string, len(cells))
		for i, cell := range cells {
			line[i] = exit.Printable(fmt.Sprint(cell))
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(line, "\t"), "\t"))
	}
	return t.Flush()
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
