package cli

import (
	"bytes"
	"testing"
)

// TestListing prints the same JSON in parts as at once, and one head above a table.
func TestListing(t *testing.T) {
	type item struct {
		Name  string   `json:"name"`
		Parts []string `json:"parts"`
	}
	all := []item{{"a <b>", []string{"x", "y"}}, {"b\x1b", nil}, {"c", []string{}}}
	for n := range len(all) + 1 {
		var once, parts, table bytes.Buffer
		if err := printJSON(&once, append([]item{}, all[:n]...)); err != nil {
			t.Fatal(err)
		}
		asJSON := &listing[item]{w: &parts, asJSON: true}
		asTable := &listing[item]{w: &table, head: "NAME", row: func(i item) []any { return []any{i.Name} }}
		for i := range n {
			for _, l := range []*listing[item]{asJSON, asTable} {
				if err := l.add(all[i : i+1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := asJSON.end(); err != nil || once.String() != parts.String() {
			t.Errorf("%d: %v\n%s\n%s", n, err, &once, &parts)
		}
		if heads := bytes.Count(table.Bytes(), []byte("NAME")); n > 0 && (heads != 1 || bytes.Count(table.Bytes(), []byte("\n")) != n+1) {
			t.Errorf("%s", &table)
		}
	}
}
