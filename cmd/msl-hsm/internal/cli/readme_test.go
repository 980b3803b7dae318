package cli

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
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

// TestReadmeConfig reads the configuration in docs/configuration.md, which must have
// every field.
func TestReadmeConfig(t *testing.T) {
	_, text, _ := strings.Cut(page(t, "configuration.md"), "```yaml\n")
	text, _, found := strings.Cut(text, "```\n")
	if !found {
		t.Fatal("docs/configuration.md has no block of YAML")
	}
	c := config.Default()
	if err := config.DecodeYAML("configuration.md", []byte(text), c); err != nil {
		t.Fatal(err)
	}
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	everyField(t, "", node.Content[0], reflect.ValueOf(c).Elem())
}

func everyField(t *testing.T, name string, n *yaml.Node, v reflect.Value) {
	t.Helper()
	there := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		there[n.Content[i].Value] = n.Content[i+1]
	}
	for _, field := range config.FieldNames(v) {
		child, found := there[field]
		if !found {
			t.Errorf("docs/configuration.md does not have %s.%s", name, field)
			continue
		}
		if f, _ := config.FieldNamed(v, field); f.Kind() == reflect.Struct {
			everyField(t, strings.TrimPrefix(name+"."+field, "."), child, f)
		}
	}
}

func TestReadmeExitCodes(t *testing.T) {
	_, codes, _ := strings.Cut(exitText, "\n\n")
	if !strings.Contains(page(t, "exit-codes.md"), "```\n"+codes+"```\n") {
		t.Error("the exit codes in docs/exit-codes.md are not those of msl-hsm help exit-codes")
	}
}
