package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestLibraryVerbs looks for commands in the texts of libraries: programs without this command use
// them, too. Advice that names a verb belongs in package exit.
func TestLibraryVerbs(t *testing.T) {
	skipWithRace(t)
	var verbs []string
	everyVerb(rootCommand(&program{defaults: cheap}), func(c *cobra.Command) {
		if !c.HasSubCommands() {
			verbs = append(verbs, regexp.QuoteMeta(c.CommandPath()))
		}
	})
	named := regexp.MustCompile(`\b(?:` + strings.Join(verbs, "|") + `)\b`)
	list := exec.Command("git", "ls-files", "hsm/*.go", "keystore/*.go", "msl/*.go", "tpm/*.go", "softhsm/*.go")
	list.Dir = "../../../.."
	out, err := list.Output()
	if err != nil {
		t.Skip("this is no clone of the repository")
	}
	files := strings.Fields(string(out))
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(list.Dir, name))
		if err != nil || !named.Match(text) {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && named.MatchString(l.Value) {
				t.Errorf("%s names a verb: %s", set.Position(l.Pos()), l.Value)
			}
			return true
		})
	}
	if len(files) < 400 || len(verbs) < 60 {
		t.Errorf("%d files, %d verbs", len(files), len(verbs))
	}
}
