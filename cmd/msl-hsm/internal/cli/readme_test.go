package cli

import (
	"os"
	"strings"
	"testing"
)

// page reads a page of the documentation.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadmeExitCodes(t *testing.T) {
	_, codes, _ := strings.Cut(exitText, "\n\n")
	if !strings.Contains(page(t, "exit-codes.md"), "```\n"+codes+"```\n") {
		t.Error("the exit codes in docs/exit-codes.md are not those of msl-hsm help exit-codes")
	}
}
