// Benchreport turns what scripts/bench measured into a table, and into a picture.
//
//	benchreport [--json] [--plot FILE.svg] <RESULTS
//
// Every line of the results is "round side name value".
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("benchreport", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print JSON")
	plot := flags.String("plot", "", "`file` to draw the ratios to targets in, as SVG")
	if err := flags.Parse(args); err != nil {
		return err
	}
	results, err := read(in)
	if err != nil {
		return err
	}
	rows := results.rows()
	if *plot != "" {
		var picture bytes.Buffer
		draw(&picture, rows)
		if err := os.WriteFile(*plot, picture.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(rows)
	}
	return printTable(out, rows)
}

func printTable(out io.Writer, rows []row) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(out, "%-58s %9s   %-9s %s\n", r.Name, number(r.Value), r.Target, r.verdict()); err != nil {
			return err
		}
	}
	return nil
}

// number has as many digits as are worth reading.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
