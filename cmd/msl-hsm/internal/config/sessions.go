package config

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// A SessionBound is the maximum number of PKCS #11 sessions in use at the same time; 0,
// written auto, means as many as the token allows.
type SessionBound int

// UnmarshalYAML reads the word auto or a number.
func (b *SessionBound) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "auto" {
		*b = 0
		return nil
	}
	count, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || count < 0 {
		return misplaced{n, fmt.Errorf("%q: want auto, or a number such as 32", n.Value)}
	}
	*b = SessionBound(count)
	return nil
}
