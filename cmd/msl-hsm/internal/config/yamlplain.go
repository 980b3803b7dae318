package config

import (
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// plain puts the values that aliases stand for in their place, since the readers of lists and
// maps look at nodes, and refuses what is listed twice, and text that would look like other
// text, or end a line, where it is sent, logged or shown. within are the nodes around n.
func (f yamlFile) plain(name string, n *yaml.Node, within []*yaml.Node) error {
	if i := strings.IndexFunc(n.Value, controls); i >= 0 {
		return f.errorf(n, "%s has the control character %U: leave it out", orDocument(name), []rune(n.Value[i:])[0])
	}
	within = append(within, n)
	seen := map[string]bool{}
	for i, child := range n.Content {
		own := name
		if n.Kind == yaml.MappingNode {
			key := n.Content[i-i%2]
			own = joined(name, key.Value)
			if i%2 == 0 && key.Kind == yaml.ScalarNode && seen[key.Value] {
				return f.errorf(key, "field %q is listed twice", own)
			}
			seen[key.Value] = true
		}
		if child.Kind == yaml.AliasNode {
			if slices.Contains(within, child.Alias) {
				return f.errorf(child, "*%s stands for a value that contains it", child.Value)
			}
			n.Content[i] = child.Alias // which comes earlier, and is plain
			continue
		}
		if err := f.plain(own, child, within); err != nil {
			return err
		}
	}
	return nil
}

// controls reports whether a character controls how others are shown, or ends a line.
func controls(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}
