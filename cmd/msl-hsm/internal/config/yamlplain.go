package config

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// plain puts the values that aliases stand for in their place, since the readers of lists and
// maps look at nodes, and refuses what is listed twice. within are the nodes around n.
func (f yamlFile) plain(name string, n *yaml.Node, within []*yaml.Node) error {
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
