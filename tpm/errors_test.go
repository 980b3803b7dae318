package tpm_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestErrorsNameNoVerbs checks that an error says what is wrong, and leaves it to the
// command what to type next: no text of these packages names a verb or a flag of it.
func TestErrorsNameNoVerbs(t *testing.T) {
	verbs := regexp.MustCompile(`msl-hsm |\btpm (init|enroll|renew|status|quote)\b|(^|[^-\w])--[a-z]`)
	for _, pkg := range packages(t) {
		if pkg == "tpm/tpmtest" { // it runs other programs
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			for _, text := range errorTexts(t, path) {
				if verbs.MatchString(text) {
					t.Errorf("%s: %s", path, text)
				}
			}
		}
	}
}

// errorTexts lists the literals that a file hands to functions which make errors, or
// returns.
func errorTexts(t *testing.T, path string) (texts []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		var from []ast.Expr
		switch n := n.(type) {
		case *ast.CallExpr:
			from = n.Args
		case *ast.ReturnStmt:
			from = n.Results
		}
		for _, e := range from {
			if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
				texts = append(texts, l.Value)
			}
		}
		return true
	})
	return texts
}
