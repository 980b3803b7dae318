package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the block of YAML in docs/configuration.md anew")

// TestReference compares the reference in docs/configuration.md with the structs: the
// names, the comments, and the values, which are the defaults or, where a field has
// none, the examples in its tag. It reads the block, too.
func TestReference(t *testing.T) {
	const page = "../../../../docs/configuration.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "```yaml\n")
	old, after, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatalf("%s has no block of YAML", page)
	}
	want := reference(t)
	if err := DecodeYAML("configuration.md", []byte(want), Default()); err != nil {
		t.Fatalf("the reference cannot be read: %v", err)
	}
	switch {
	case old == want:
	case *update:
		if err := os.WriteFile(page, []byte(before+"```yaml\n"+want+"```\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the structs say; go test ./cmd/msl-hsm/internal/config -update writes it", page)
	}
}

// reference is the block, with a section for each field of Config.
func reference(t *testing.T) string {
	r := &referenceWriter{t: t, comments: comments(t)}
	v := reflect.ValueOf(Default()).Elem()
	for i := range v.NumField() {
		if i > 0 && v.Type().Field(i).Tag.Get("yaml") != "" {
			r.text.WriteByte('\n')
		}
		r.field(v, i, 0)
	}
	return r.text.String()
}

// comments are the comments of fields, by "Type.Field"; those of a struct without a
// name have "Type.Field.Field".
func comments(t *testing.T) map[string]string {
	all := map[string]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				noteComments(all, spec.Name.Name, spec.Type)
			}
			return true
		})
	}
	return all
}

func noteComments(all map[string]string, name string, n ast.Expr) {
	s, ok := n.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range s.Fields.List {
		for _, field := range f.Names {
			all[name+"."+field.Name] = strings.TrimSpace(f.Comment.Text())
			noteComments(all, name+"."+field.Name, f.Type)
		}
	}
}

type referenceWriter struct {
	t        *testing.T
	comments map[string]string
	text     strings.Builder
}

const (
	commentColumn = 26
	lineWidth     = 92
)

// field writes a field of a struct, and what is in it.
func (r *referenceWriter) field(v reflect.Value, i, depth int) { r.named(v, v.Type().Name(), i, depth) }

func (r *referenceWriter) named(v reflect.Value, of string, i, depth int) {
	f := v.Type().Field(i)
	name := f.Tag.Get("yaml")
	if name == "" {
		return
	}
	value, isStruct := v.Field(i), f.Type.Kind() == reflect.Struct
	line := strings.Repeat("  ", depth) + name + ":"
	lines, example := []string(nil), f.Tag.Get("example")
	switch {
	case isStruct:
	case example != "":
		lines = strings.Split(example, "\n")
	default:
		lines = []string{r.value(value)}
	}
	if len(lines) > 0 && lines[0] != "" {
		line += " " + lines[0]
	}
	r.line(line, r.comments[of+"."+f.Name])
	for _, more := range lines[min(1, len(lines)):] {
		r.line(strings.Repeat("  ", depth+1)+more, "")
	}
	if !isStruct {
		return
	}
	within := f.Type.Name()
	if within == "" {
		within = of + "." + f.Name
	}
	for i := range f.Type.NumField() {
		r.named(value, within, i, depth+1)
	}
}

// value is a default in YAML, on one line.
func (r *referenceWriter) value(v reflect.Value) string {
	var n yaml.Node
	if err := n.Encode(v.Interface()); err != nil {
		r.t.Fatal(err)
	}
	n.Style = yaml.FlowStyle
	text, err := yaml.Marshal(&n)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// line writes a line with its comment, which continues below it if it is long.
func (r *referenceWriter) line(line, comment string) {
	if comment == "" {
		r.text.WriteString(line + "\n")
		return
	}
	if len(line) >= commentColumn {
		line += "   "
	}
	line = fmt.Sprintf("%-*s", commentColumn, line)
	for _, word := range strings.Fields("# " + comment) {
		switch {
		case strings.HasSuffix(line, " "):
			line += word
		case len(line)+1+len(word) > lineWidth:
			r.text.WriteString(line + "\n")
			line = strings.Repeat(" ", commentColumn) + "# " + word
		default:
			line += " " + word
		}
	}
	r.text.WriteString(line + "\n")
}
