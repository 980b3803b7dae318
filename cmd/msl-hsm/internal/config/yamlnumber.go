package config

import (
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// plainNumber matches a whole number that all versions of YAML read alike.
var plainNumber = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)$`)

// oneReading refuses a whole number that programs read differently: 010 is 8 in YAML 1.1 and 10 in
// YAML 1.2, and 1_000, 0b10 and 0o10 are numbers in one of them and texts in the other.
func oneReading(n *yaml.Node) error {
	if n.ShortTag() != "!!int" || plainNumber.MatchString(n.Value) {
		return nil
	}
	return fmt.Errorf("%s, which not all programs read as the same number: write it in decimal digits, without leading zeros", n.Value)
}
