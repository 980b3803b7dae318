package hsm_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
)

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
