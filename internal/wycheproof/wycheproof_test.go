package wycheproof

import (
	"io/fs"
	"path"
	"strings"
	"testing"
)

// TestFiles asks that every file is read whole, and that a sample has every kind.
func TestFiles(t *testing.T) {
	all, err := fs.Glob(files, "testdata/*.json.gz")
	if err != nil || len(all) != 13 {
		t.Fatalf("%d files, %v", len(all), err)
	}
	for _, file := range all {
		f := Read(t, strings.TrimSuffix(path.Base(file), ".json.gz"))
		if one, kinds := f.Sample(1), f.kinds(); one.len() < len(kinds) || len(one.kinds()) != len(kinds) {
			t.Errorf("%s: a sample of %d vectors has %d of %d kinds", file, one.len(), len(one.kinds()), len(kinds))
		}
		if f.Sample(f.Count).len() != f.Count {
			t.Errorf("%s: a sample leaves out what it need not", file)
		}
	}
}

// kinds are the flags and verdicts of a file.
func (f File) kinds() map[string]bool {
	kinds := map[string]bool{}
	for _, g := range f.Groups {
		for _, v := range g.Tests {
			kinds[v.Result+strings.Join(v.Flags, " ")] = true
		}
	}
	return kinds
}

// TestVerdicts asks which verdicts agree, and how they are counted.
func TestVerdicts(t *testing.T) {
	c := count{acceptable: map[string]int{}, notAsked: map[string]int{}}
	for _, test := range []struct {
		result string
		d      Verdict
		agrees bool
	}{
		{"valid", Accepted(true), true},
		{"valid", Accepted(false), false},
		{"invalid", Accepted(true), false},
		{"invalid", Accepted(false), true},
		{"acceptable", Accepted(true), true},
		{"acceptable", Accepted(false), true},
		{"valid", NotAsked("key of %d bytes", 24), true},
	} {
		v := Vector{Result: test.result, Flags: []string{"Odd"}}
		if c.add(v, test.d); test.d.agrees(v) != test.agrees {
			t.Errorf("%+v on one that is %s agrees: %t", test.d, test.result, !test.agrees)
		}
	}
	want := "aes_wrap: 0 of 7 vectors: 1 accepted and 1 refused as they should; 2 WRONG; acceptable: 1 accepted Odd; acceptable: 1 refused Odd; not asked: 1 key of 24 bytes"
	if got := c.line(File{Name: "aes_wrap", Count: 7}); got != want {
		t.Errorf("counted\n%s, want\n%s", got, want)
	}
}
