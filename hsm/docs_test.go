package hsm_test

import (
	goflag "flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
)

var update = goflag.Bool("update", false, "write the tables of docs/hsm.md anew")

// TestDocumentedForms finds every form that seals in the documentation, and what has to be
// allowed for it.
func TestDocumentedForms(t *testing.T) {
	text, err := os.ReadFile("../docs/hsm.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range hsm.Forms() {
		if !strings.Contains(string(text), f) {
			t.Errorf("docs/hsm.md does not name %s", f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hsm.Weaknesses())) {
		if strings.HasPrefix(name, "seal-") && !strings.Contains(string(text), "allow-weak: ["+name+"]") {
			t.Errorf("docs/hsm.md does not name %s", name)
		}
	}
}

// TestDocumentedQuirks compares the table of quirks with the documentation. With -update
// it is written anew.
func TestDocumentedQuirks(t *testing.T) {
	const begin, end = "| modules | what they do | what is done |\n|---|---|---|\n", "\n\n"
	const path = "../docs/hsm.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatal("docs/hsm.md has no table of quirks")
	}
	var rows []string
	for _, q := range hsm.Quirks() {
		codes := ""
		if len(q.Codes) > 0 {
			codes = " (" + strings.Join(q.Codes, ", ") + ")"
		}
		rows = append(rows, "| "+q.Modules+" | "+q.Does+codes+" | "+q.Done+" |")
	}
	want := strings.Join(rows, "\n")
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if old != want {
		t.Error("the table of quirks in docs/hsm.md is not that of hsm/quirks.go: go test ./hsm -run Documented -update")
	}
}
