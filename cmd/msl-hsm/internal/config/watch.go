package config

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Watch is how often files are checked for changes; 0, written off, means never.
type Watch time.Duration

// leastWatch is the minimum time between two checks.
const leastWatch = time.Second

// UnmarshalYAML reads the word off or a duration.
func (w *Watch) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "off" {
		*w = 0
		return nil
	}
	every, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || every < leastWatch {
		return misplaced{n, fmt.Errorf("%q: want off, or a time of %v or more such as 5s", n.Value, leastWatch)}
	}
	*w = Watch(every)
	return nil
}
