package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
)

type failuresFlags struct {
	file, since, code string
	entity, version   string
	kind, provider    string
	result            string
	by                []string
	asJSON            bool
}

func failuresCommand(p *program) *cobra.Command {
	var f failuresFlags
	c := &cobra.Command{
		Use:   "failures",
		Short: "List the crypto failures that clients have reported",
		Long: `Lists what clients have reported when their HSM or TPM did not answer, a key was
missing, a token could no longer be opened or something did not decrypt. With --by, they
are counted in groups.

The reports are unencrypted and come from entities that have proven nothing: treat them as
hints. The times FIRST and LAST are those of the client's clock.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error { return runFailures(p, f) },
	}
	s := c.Flags().StringVar
	s(&f.file, "file", "", "the log, a `FILE` (default server.failures.log of the configuration)")
	s(&f.since, "since", "", "only reports received since this `TIME`, such as 2026-01-31, 2026-01-31T12:00:00Z, 90m or 7d (ago)")
	s(&f.entity, "entity", "", "only from the entity with this `NAME`")
	s(&f.version, "version", "", "only from this `VERSION` of the software")
	s(&f.kind, "kind", "", "only this `KIND`: device, key, token or data")
	s(&f.provider, "provider", "", "only with keys of this `PROVIDER`: pkcs11, tpm or soft")
	s(&f.result, "result", "", "only with this `NAME` of a result, like CKR_DEVICE_ERROR")
	s(&f.code, "code", "", "only with this MSL error `CODE`")
	c.Flags().StringSliceVar(&f.by, "by", nil, "count in groups by these `FIELDS`: "+strings.Join(groupFields(), ", "))
	jsonFlag(c, &f.asJSON)
	return c
}

func runFailures(p *program, f failuresFlags) error {
	path := f.file
	if path == "" {
		c, err := p.configure()
		if err != nil {
			return err
		}
		if path = c.Server.Failures.Log; path == "" {
			return exit.Usagef("no log to read: give --file FILE, or server.failures.log in the configuration")
		}
	}
	wanted, err := f.filter(time.Now())
	if err != nil {
		return err
	}
	for _, field := range f.by {
		if !slices.Contains(groupFields(), field) {
			return exit.Usagef("failures are not counted by %q: want %s", field, strings.Join(groupFields(), ", "))
		}
	}
	var all []failurelog.Record
	read := 0
	skipped, err := failurelog.Read(path, func(r failurelog.Record) {
		read++
		if wanted(r) {
			all = append(all, r)
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no log of failures at %s; msl-hsm serve makes it", path)
	}
	if err != nil {
		return err
	}
	if read == 0 && skipped > 0 {
		return fmt.Errorf("%s is not a log of failures: none of its %d lines can be read; name another file with --file", path, skipped)
	}
	if err := printFailures(p, all, f); err != nil {
		return err
	}
	missingFailures(p, all, skipped)
	return nil
}

// filter returns the filter that the flags describe.
func (f failuresFlags) filter(now time.Time) (func(failurelog.Record) bool, error) {
	var since time.Time
	var code msl.Code
	var err error
	if f.since != "" {
		if since, err = parseSince(f.since, now); err != nil {
			return nil, err
		}
	}
	if f.code != "" {
		if code, err = parseCode(f.code); err != nil {
			return nil, err
		}
	}
	if f.kind != "" && f.kind != failurelog.Other && !slices.Contains(failurelog.Kinds(), failurelog.Kind(f.kind)) {
		return nil, exit.Usagef("unknown kind of failure %q: want one of %s", f.kind, exit.List(failurelog.Kinds()))
	}
	if f.provider != "" && f.provider != failurelog.Other && !slices.Contains(failurelog.Providers(), failurelog.Provider(f.provider)) {
		return nil, exit.Usagef("unknown provider %q: want one of %s", f.provider, exit.List(failurelog.Providers()))
	}
	return func(r failurelog.Record) bool {
		return !r.Received.Before(since) &&
			(f.code == "" || r.Code == code) &&
			(f.entity == "" || r.Entity == f.entity) &&
			(f.version == "" || r.Version == f.version) &&
			(f.kind == "" || string(r.Kind) == f.kind) &&
			(f.provider == "" || string(r.Provider) == f.provider) &&
			(f.result == "" || r.Result == f.result)
	}, nil
}

// parseSince reads a time, or a duration before now.
func parseSince(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		const most = 366 * 2000 // days: earlier dates have no year
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= most {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, exit.Usagef("--since %q: want a time like 2026-01-31 or 2026-01-31T12:00:00Z, or how long ago, like 90m or 7d", text)
}

func printFailures(p *program, all []failurelog.Record, f failuresFlags) error {
	if len(f.by) > 0 {
		head := strings.ToUpper(strings.Join(f.by, "\t")) + "\tFAILURES\tENTITIES\tFIRST\tLAST"
		return list(p.stdout, f.asJSON, groupFailures(all, f.by), head, (*failureGroup).row)
	}
	head := "RECEIVED\tCLAIMED ENTITY\tKIND\tPROVIDER\tOPERATION\tRESULT\tCAUSE\tCODE\tFAILURES\tLAST\tVERSION"
	return list(p.stdout, f.asJSON, all, head, func(r failurelog.Record) []any {
		return []any{shortTime(r.Received), r.Entity, r.Kind, r.Provider, r.Operation, r.Result, r.Cause, codeText(r), r.Count, shortTime(r.Last), r.Version}
	})
}

func shortTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// codeText returns the code, and which side reported it.
func codeText(r failurelog.Record) string {
	switch {
	case r.Code == 0:
		return ""
	case r.Peer:
		return strconv.Itoa(int(r.Code)) + " by peer"
	}
	return strconv.Itoa(int(r.Code))
}

// missingFailures prints a note about failures missing from the list.
func missingFailures(p *program, all []failurelog.Record, skipped int) {
	var lost, damaged uint64
	for _, r := range all {
		lost, damaged = lost+uint64(r.Lost), damaged+uint64(r.Skipped)
	}
	if lost+damaged > 0 {
		fmt.Fprintf(p.stderr, "clients dropped %d failures for lack of space, and %d damaged spool lines\n", lost, damaged)
	}
	if skipped > 0 {
		fmt.Fprintf(p.stderr, "%d lines of the log cannot be read\n", skipped)
	}
}

// A failureGroup is a group of failures that share some fields.
type failureGroup struct {
	Fields   map[string]string `json:"group"`
	Failures uint64            `json:"failures"`
	Entities int               `json:"entities"` // that were claimed
	First    time.Time         `json:"first"`
	Last     time.Time         `json:"last"`

	by   []string
	seen map[string]bool
}

// groupField returns the value of a field by which failures can be counted.
func groupField(field string, r failurelog.Record) string {
	switch field {
	case "code":
		return codeText(r)
	case "provider":
		return string(r.Provider)
	case "version":
		return r.Version
	case "entity":
		return r.Entity
	case "day":
		return r.Received.Local().Format(time.DateOnly)
	case "kind":
		return string(r.Kind)
	case "operation":
		return r.Operation
	case "result":
		return r.Result
	case "cause":
		return r.Cause
	}
	return ""
}

func groupFields() []string {
	return []string{"code", "provider", "version", "entity", "day", "kind", "operation", "result", "cause"}
}

// groupFailures groups and counts failures, the most frequent first.
func groupFailures(all []failurelog.Record, by []string) []*failureGroup {
	var groups []*failureGroup
	found := map[string]*failureGroup{}
	for _, r := range all {
		fields := map[string]string{}
		for _, field := range by {
			fields[field] = groupField(field, r)
		}
		key := fmt.Sprintf("%q", fields)
		g, ok := found[key]
		if !ok {
			g = &failureGroup{Fields: fields, First: r.First, Last: r.Last, by: by, seen: map[string]bool{}}
			found[key] = g
			groups = append(groups, g)
		}
		g.add(r)
	}
	slices.SortStableFunc(groups, func(a, b *failureGroup) int { return cmp.Compare(b.Failures, a.Failures) })
	return groups
}

func (g *failureGroup) add(r failurelog.Record) {
	g.Failures += uint64(r.Count)
	g.seen[r.Entity] = true
	g.Entities = len(g.seen)
	if r.First.Before(g.First) {
		g.First = r.First
	}
	if r.Last.After(g.Last) {
		g.Last = r.Last
	}
}

func (g *failureGroup) row() []any {
	var cells []any
	for _, field := range g.by {
		cells = append(cells, g.Fields[field])
	}
	return append(cells, g.Failures, g.Entities, shortTime(g.First), shortTime(g.Last))
}
