package tlsalert

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestCauses reads the source of crypto/tls, and compares each alert that it sends
// just before it returns an error with what From makes of that error.
func TestCauses(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no Go command: ", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src/crypto/tls")
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Skip("no source of crypto/tls in ", dir)
	}
	set := token.NewFileSet()
	numbers, sends := map[string]Alert{}, map[string][]string{} // alerts by text
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			noteNumbers(n, numbers)
			noteSends(n, sends)
			return true
		})
	}
	if len(numbers) < 30 || len(sends) < 90 {
		t.Fatalf("only %d alerts and %d causes found: crypto/tls is written otherwise now", len(numbers), len(sends))
	}
	for text, names := range sends {
		if elsewhere(text) {
			continue
		}
		if !strings.HasPrefix(text, "tls: ") {
			text = "tls: " + text // of a RecordHeaderError
		}
		got, origin, _ := inText(errors.New(text))
		matches := false
		for _, name := range names {
			matches = matches || got == numbers[name]
		}
		if !matches || origin != Sent {
			t.Errorf("%q: crypto/tls sends %v, From finds %v (%v)", text, names, got, origin)
		}
	}
}

// elsewhere reports whether a cause cannot occur on a stream connection without ECH
// keys.
func elsewhere(text string) bool {
	for _, part := range []string{"quic", "QUIC", "0-RTT", "EncryptedClientHelloKey", "unknown Renegotiation value"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// noteNumbers reads constants like alertUnknownCA alert = 48.
func noteNumbers(n ast.Node, numbers map[string]Alert) {
	spec, ok := n.(*ast.ValueSpec)
	if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "alert") {
		return
	}
	if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
		if v, err := strconv.Atoi(lit.Value); err == nil {
			numbers[spec.Names[0].Name] = Alert(v)
		}
	}
}

// noteSends reads c.sendAlert(alertX) and the first text up to the next return.
func noteSends(n ast.Node, sends map[string][]string) {
	var list []ast.Stmt
	switch block := n.(type) {
	case *ast.BlockStmt:
		list = block.List
	case *ast.CaseClause:
		list = block.Body
	}
	for i, s := range list {
		name := sendsAlert(s)
		if name == "" {
			continue
		}
		for _, after := range list[i+1:] {
			if text := firstText(after); text != "" {
				sends[text] = append(sends[text], name)
				break
			}
			if _, ok := after.(*ast.ReturnStmt); ok {
				break
			}
		}
	}
}

func sendsAlert(s ast.Stmt) string {
	e, ok := s.(*ast.ExprStmt)
	if !ok {
		return ""
	}
	call, ok := e.X.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return ""
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	name, isName := call.Args[0].(*ast.Ident)
	if !ok || !isName || !strings.HasPrefix(f.Sel.Name, "sendAlert") {
		return ""
	}
	return name.Name
}

func firstText(s ast.Stmt) (text string) {
	ast.Inspect(s, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && text == "" {
			text, _ = strconv.Unquote(lit.Value)
		}
		return text == ""
	})
	return text
}
