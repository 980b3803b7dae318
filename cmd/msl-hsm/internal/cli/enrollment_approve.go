package cli

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// approveFile lets the verb approve read its devices from a file.
func approveFile(p *program, c *cobra.Command, name, note *string) {
	var path string
	c.Flags().StringVar(&path, "file", "", "approve the devices of this `FILE`, or of the standard input for -")
	c.Use = "approve DEVICE | --file FILE"
	c.Long += `

A FILE has one device per line: DEVICE as above, then optionally its name and a note,
separated by spaces, tabs or a comma. Empty lines and lines that begin with # are ignored.
Invalid lines are reported, and all others approved. Correct them and give the same file
again.`
	args, one := c.Args, c.RunE
	c.Args = func(c *cobra.Command, given []string) error {
		if path == "" {
			return args(c, given)
		}
		return want()(c, given)
	}
	c.RunE = func(c *cobra.Command, given []string) error {
		switch {
		case path == "":
			return one(c, given)
		case *name != "":
			return exit.Usagef("--name is for one device: names are on the lines of --file")
		}
		return p.approveAll(path, *note)
	}
}

func (p *program) approveAll(path, note string) error {
	from, shown := io.NopCloser(p.stdin), "standard input"
	if path != "-" {
		f, err := plainfile.Stream(path)
		if err != nil {
			return exit.Usagef("--file: %w; name a file with a device on each line, or - for standard input", err)
		}
		from, shown = f, path
	}
	defer from.Close()
	return p.withEnrollments(false, func(s admin.Enrollments) error {
		a := &approver{p: p, line: newProgress(p.stderr), devices: s, file: shown, note: note}
		err := a.read(from)
		a.line.clear()
		fmt.Fprintf(p.stdout, "approved %s\n", exit.Count(a.approved, "device", "devices"))
		if err == nil && a.wrong > 0 {
			err = fmt.Errorf("%s: %d lines were not approved: correct them, and give the file again", shown, a.wrong)
		}
		return err
	})
}

// An approver approves the devices of a file.
type approver struct {
	p               *program
	line            *progressLine
	devices         admin.Enrollments
	file, note      string
	some            []enroll.Approval // waiting to be approved together
	lines           []int             // where they come from
	approved, wrong int
	named           map[enroll.ID]uint64 // devices with a name, and a hash of that
	seed            maphash.Seed
}

// approveTogether is how many devices are approved in one call.
const approveTogether = 500

// maxLine is the longest line in bytes: an EK hash, a name and a note are shorter.
const maxLine = 4 << 10

func (a *approver) read(from io.Reader) error {
	a.named, a.seed = map[enroll.ID]uint64{}, maphash.MakeSeed()
	r := bufio.NewReaderSize(from, maxLine)
	for n := 1; ; n++ {
		line, tooLong, err := r.ReadLine()
		whole := tooLong
		for tooLong && err == nil {
			_, tooLong, err = r.ReadLine()
		}
		switch {
		case whole:
			a.refuse(n, fmt.Errorf("longer than %d bytes", maxLine))
		case err == nil:
			if err := a.take(n, string(line)); err != nil {
				return err // not to be retried with the remaining devices
			}
		}
		if errors.Is(err, io.EOF) {
			return a.flush()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: line %d: %w", a.file, n, err), a.flush())
		}
	}
}

// take reads a line, which may be empty.
func (a *approver) take(n int, line string) error {
	if n == 1 {
		line = strings.TrimPrefix(line, "\ufeff") // as some editors begin a file
	}
	if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
		return nil
	}
	device, err := a.parse(line)
	switch {
	case ofLine(err):
		a.refuse(n, err)
		return nil
	case err != nil:
		return errors.Join(fmt.Errorf("%s: from line %d on: %w", a.file, n, err), a.flush())
	}
	a.some, a.lines = append(a.some, device), append(a.lines, n)
	if len(a.some) == approveTogether {
		return a.flush()
	}
	return nil
}

// parse reads a device, its name and a note.
func (a *approver) parse(line string) (d enroll.Approval, err error) {
	if !utf8.ValidString(line) {
		return d, exit.Usagef("is not UTF-8")
	}
	what, rest := cutField(line)
	id, err := completeID(a.devices, what)
	if err != nil {
		return d, err
	}
	d.Name, d.Note = cutField(rest)
	if d.Note == "" {
		d.Note = a.note
	}
	if d.ID, err = enroll.ParseID(id); err != nil || d.Name == "" {
		return d, err
	}
	name := maphash.String(a.seed, d.Name)
	if before, again := a.named[d.ID]; again && before != name {
		return d, exit.Usagef("the device has another name on an earlier line")
	}
	a.named[d.ID] = name
	return d, nil
}

// cutField returns the text before a separator, which is a comma with optional spaces, or
// only spaces, and the text after it.
func cutField(s string) (field, rest string) {
	end := strings.IndexAny(s, " \t,;")
	if end < 0 {
		return s, ""
	}
	field, rest = s[:end], strings.TrimLeft(s[end:], " \t")
	if rest != "" && (rest[0] == ',' || rest[0] == ';') {
		rest = strings.TrimLeft(rest[1:], " \t")
	}
	return field, rest
}

// flush approves the waiting devices.
func (a *approver) flush() error {
	errs, err := a.devices.Approve(a.some)
	if err != nil {
		errs = append(errs, err)
	}
	var failed error
	for i, err := range errs {
		switch {
		case err == nil:
			a.approved++
		case ofLine(err):
			a.refuse(a.lines[i], err)
		case failed == nil:
			failed = fmt.Errorf("%s: from line %d on: %w", a.file, a.lines[i], err)
		}
	}
	if failed != nil {
		return failed
	}
	a.some, a.lines = a.some[:0], a.lines[:0]
	a.line.tell("approved %s", exit.Count(a.approved, "device", "devices"))
	return nil
}

// ofLine reports whether an error is about one device, so that others can be approved.
func ofLine(err error) bool {
	return exit.IsAny(err, enroll.ErrUnknown, enroll.ErrName, enroll.ErrState) || err != nil && exit.Code(err) == exit.Usage
}

func (a *approver) refuse(line int, err error) {
	a.wrong++
	a.line.clear()
	fmt.Fprintf(a.p.stderr, "%s:%d: %s\n", exit.Printable(a.file), line, exit.Printable(exit.OneLine(err)))
}
