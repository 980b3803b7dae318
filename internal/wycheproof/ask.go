package wycheproof

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Verdict is what an implementation makes of a vector. The zero value means that it
// refuses it.
type Verdict struct {
	accepted bool
	why      string // it was not asked
}

// Accepted is the verdict on what computes what the vector says, if it does.
func Accepted(is bool) Verdict { return Verdict{accepted: is} }

// NotAsked says why the implementation cannot be asked that vector, in words that are
// the same for vectors alike.
func NotAsked(why string, args ...any) Verdict { return Verdict{why: fmt.Sprintf(why, args...)} }

// Ask asks every vector of f, and fails the test where a verdict is another than that of
// the file. An acceptable vector may be accepted or refused. It logs one line: how many
// verdicts agree, what was made of acceptable ones, by their flags, and why others were
// not asked.
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
