package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// DecodeYAML fills a struct from a file. Anything that is unknown, given twice or of the
// wrong kind is an error that names file, line and column.
func DecodeYAML(path string, data []byte, into any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if err == io.EOF {
		return nil // nothing but comments
	}
	if err != nil {
		return syntaxError(path, data, err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return fmt.Errorf("%s:%d:%d: a second document begins here, and only one is read: put all into the first, and remove the line ---", path, second.Line, second.Column)
	case err != io.EOF:
		return syntaxError(path, data, err)
	}
	if len(document.Content) == 0 {
		return nil
	}
	if err := yamlFile(path).plain("", document.Content[0], nil); err != nil {
		return err
	}
	return yamlFile(path).fill("", document.Content[0], reflect.ValueOf(into).Elem())
}

// isBlank reports whether a file has no setting.
func isBlank(data []byte) bool {
	var document yaml.Node
	return yaml.Unmarshal(data, &document) == nil && !hasSetting(&document)
}

func hasSetting(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.DocumentNode:
		return slices.ContainsFunc(n.Content, hasSetting)
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			if hasSetting(n.Content[i]) {
				return true
			}
		}
		return false
	}
	return n.Kind != 0 && !isNull(n)
}

// syntaxError adds a place to an error of the parser, which has at most a line: the first
// character of that line, or the alias that it concerns.
func syntaxError(path string, data []byte, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line, column := 1, 1
	if n, scanErr := fmt.Sscanf(text, "line %d: ", &line); n == 1 && scanErr == nil {
		_, text, _ = strings.Cut(text, ": ")
	} else if _, alias, found := strings.Cut(text, "unknown anchor '"); found {
		name, _, _ := strings.Cut(alias, "'")
		before, _, _ := bytes.Cut(data, []byte("*"+name))
		line = 1 + bytes.Count(before, []byte("\n"))
		column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	if lines := bytes.Split(data, []byte("\n")); column == 1 && line >= 1 && line <= len(lines) {
		column = 1 + len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " "))
	}
	return fmt.Errorf("%s:%d:%d: this is not YAML: %s", path, line, column, text)
}

// A yamlFile is the name of a file, for errors.
type yamlFile string

func (f yamlFile) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %w", f, n.Line, n.Column, fmt.Errorf(format, args...))
}

// located adds a place to an error about settings: that of the first setting in its text that
// the file contains, or of its section.
func located(path string, data []byte, err error) error {
	var document yaml.Node
	if err == nil || yaml.Unmarshal(data, &document) != nil || len(document.Content) == 0 {
		return err
	}
	names := regexp.MustCompile(`\b(keystore|server|client)(\.[a-z0-9-]+)+`).FindAllString(err.Error(), -1)
	for _, name := range names {
		if n := nodeOf(document.Content[0], name); n != nil {
			return yamlFile(path).errorf(n, "%w", err)
		}
	}
	for _, name := range names {
		for ; strings.Contains(name, "."); name = name[:strings.LastIndexByte(name, '.')] {
			if n := nodeOf(document.Content[0], name); n != nil {
				return yamlFile(path).errorf(n, "%w", err)
			}
		}
	}
	return err
}

// nodeOf returns the value of a setting, or nil.
func nodeOf(n *yaml.Node, name string) *yaml.Node {
	first, rest, more := strings.Cut(name, ".")
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == first && more {
			return nodeOf(n.Content[i+1], rest)
		} else if n.Content[i].Value == first {
			return n.Content[i+1]
		}
	}
	return nil
}

func (f yamlFile) fill(name string, n *yaml.Node, v reflect.Value) error {
	if v.Kind() == reflect.Struct {
		return f.fillStruct(name, n, v)
	}
	if isNull(n) {
		return f.errorf(n, "%s has no value", name)
	}
	if (v.CanInt() || v.CanUint()) && n.ShortTag() == "!!float" { // which Decode would cut to a whole number
		return f.errorf(n, "%s must be %s", name, kindName(v))
	}
	if v.CanInt() || v.CanUint() || v.CanFloat() {
		if err := oneReading(n); err != nil {
			return f.errorf(n, "%s is %w", name, err)
		}
	}
	if i := slices.IndexFunc(n.Content, isNull); n.Kind == yaml.SequenceNode && i >= 0 { // which Decode would drop
		return f.errorf(n.Content[i], "%s has an entry without a value", name)
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		var kind *yaml.TypeError
		var elsewhere misplaced
		if errors.As(err, &elsewhere) {
			return f.errorf(elsewhere.node, "%s: %w", name, elsewhere.error)
		}
		if !errors.As(err, &kind) {
			return f.errorf(n, "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		return f.errorf(n, "%s must be %s", name, kindName(v))
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (f yamlFile) fillStruct(name string, n *yaml.Node, v reflect.Value) error {
	if isNull(n) {
		return nil // a section whose lines are all commented out
	}
	if field, ok := shortField(v); ok && n.Kind != yaml.MappingNode {
		return f.fill(name, n, field)
	}
	if n.Kind != yaml.MappingNode {
		return f.errorf(n, "%s must have fields, such as \"name: value\"", orDocument(name))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field, known := fieldNamed(v, key.Value)
		if !known {
			return f.errorf(key, "unknown field %q in %s; %s", key.Value, orDocument(name), instead(key.Value, fieldNames(v)))
		}
		if err := f.fill(joined(name, key.Value), value, field); err != nil {
			return err
		}
	}
	return nil
}

// joined returns the name of a field of a section.
func joined(section, field string) string { return strings.TrimPrefix(section+"."+field, ".") }

// orDocument returns the name of a section, or for the outermost one, which has no name, a
// description.
func orDocument(name string) string {
	if name == "" {
		return "the file"
	}
	return name
}

func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if name != "" && v.Type().Field(i).Tag.Get("yaml") == name { // "" is that of fields that are not settings
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// shortField returns the field that a value without names sets.
func shortField(v reflect.Value) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("short") != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func fieldNames(v reflect.Value) (names []string) {
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func kindName(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		return "a duration, such as 90s or 24h"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.CanInt():
		return "a whole number"
	case v.CanUint():
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<v.Type().Bits()-1)
	case v.Kind() == reflect.Slice:
		return "a list, such as [a, b]"
	case v.Kind() == reflect.Map:
		return "names with values, such as {a: b}"
	}
	return "a text"
}

// oneOrMore returns the items of a list, or a value that stands for a list of one. An empty
// text means none.
func oneOrMore(n *yaml.Node) []*yaml.Node {
	switch {
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode && n.Value == "":
		return nil
	}
	return []*yaml.Node{n}
}

// instead suggests the field meant by an unknown name, and lists those that exist.
func instead(name string, fields []string) string {
	has := "it has " + strings.Join(fields, ", ")
	if near := exit.Nearest(name, fields); near != "" {
		return fmt.Sprintf("%s; did you mean %q?", has, near)
	}
	return has
}
