package wycheproof

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Verdict is an implementation's verdict on a vector. The zero value means that it
// refuses it.
type Verdict struct {
	accepted bool
	why      string // it was not asked
}

// Accepted is the verdict of an implementation that computes what the vector says, if is
// is true.
func Accepted(is bool) Verdict { return Verdict{accepted: is} }

// NotAsked says why the implementation cannot be given that vector, in the same words for
// similar vectors.
func NotAsked(why string, args ...any) Verdict { return Verdict{why: fmt.Sprintf(why, args...)} }

// Ask asks for the verdict on every vector of f, and fails the test if one differs from
// the file's. An acceptable vector may be accepted or refused. It logs one line: how many
// verdicts agree, how acceptable vectors were judged, by flags, and why others were not
// asked.
func Ask(t T, f File, ask func(g Group, v Vector) Verdict) {
	t.Helper()
	c := count{acceptable: map[string]int{}, notAsked: map[string]int{}}
	for _, g := range f.Groups {
		for _, v := range g.Tests {
			verdict := ask(g, v)
			if c.add(v, verdict); !verdict.agrees(v) {
				t.Errorf("%v: accepted is %t", v, verdict.accepted)
			}
		}
	}
	t.Log(c.line(f))
}

func (d Verdict) agrees(v Vector) bool {
	return d.why != "" || v.Result == "acceptable" || d.accepted == (v.Result == "valid")
}

// A count is how many vectors had which outcome.
type count struct {
	valid, invalid, differ int
	acceptable, notAsked   map[string]int
}

func (c *count) add(v Vector, d Verdict) {
	switch {
	case d.why != "":
		c.notAsked[d.why]++
	case v.Result == "acceptable" && d.accepted:
		c.acceptable["accepted "+strings.Join(v.Flags, " ")]++
	case v.Result == "acceptable":
		c.acceptable["refused "+strings.Join(v.Flags, " ")]++
	case !d.agrees(v):
		c.differ++
	case d.accepted:
		c.valid++
	default:
		c.invalid++
	}
}

func (c *count) line(f File) string {
	parts := []string{fmt.Sprintf("%s: %d of %d vectors: %d accepted and %d refused as they should", f.Name, f.len(), f.Count, c.valid, c.invalid)}
	if c.differ > 0 {
		parts = append(parts, fmt.Sprintf("%d WRONG", c.differ))
	}
	for _, what := range slices.Sorted(maps.Keys(c.acceptable)) {
		parts = append(parts, fmt.Sprintf("acceptable: %d %s", c.acceptable[what], what))
	}
	for _, why := range slices.Sorted(maps.Keys(c.notAsked)) {
		parts = append(parts, fmt.Sprintf("not asked: %d %s", c.notAsked[why], why))
	}
	return strings.Join(parts, "; ")
}
