package config

import (
	"fmt"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Ceremony is the plan agreed on before keys are made in front of witnesses.
type Ceremony struct {
	Title      string             `yaml:"title"`
	Operator   string             `yaml:"operator"`   // who types
	Witnesses  []string           `yaml:"witnesses"`  // who watches
	Token      string             `yaml:"token"`      // URI; else keystore.uri of the configuration
	Keys       CeremonyKeys       `yaml:"keys"`       // in this order
	Attributes CeremonyAttributes `yaml:"attributes"` // that each key must have
	Signer     string             `yaml:"signer"`     // label of the key that signs the transcript, made first
	Transcript string             `yaml:"transcript"` // file, beside that of the ceremony
}

// A CeremonyKey is a key to make.
type CeremonyKey struct {
	Label     string
	Algorithm keystore.Algorithm
}

// CeremonyKeys are keys with different labels.
type CeremonyKeys []CeremonyKey

// UnmarshalYAML reads {label: NAME, algorithm: ALGORITHM} for each key.
func (k *CeremonyKeys) UnmarshalYAML(n *yaml.Node) error {
	var entries []yaml.Node
	if err := n.Decode(&entries); err != nil {
		return err
	}
	for i := range entries {
		var fields map[string]string
		if err := entries[i].Decode(&fields); err != nil {
			return misplaced{&entries[i], fmt.Errorf("want {label: NAME, algorithm: ALGORITHM}")}
		}
		algorithm, err := keystore.ParseAlgorithm(fields["algorithm"])
		label := fields["label"]
		switch {
		case label == "" || len(fields) != 2:
			return misplaced{&entries[i], fmt.Errorf("want {label: NAME, algorithm: ALGORITHM}")}
		case err != nil:
			return misplaced{&entries[i], fmt.Errorf("unknown algorithm %q; msl-hsm key create --help has the names", fields["algorithm"])}
		case slices.ContainsFunc(*k, func(other CeremonyKey) bool { return other.Label == label }):
			return misplaced{&entries[i], fmt.Errorf("the key %q is listed twice", label)}
		}
		if err := CheckLabel(label); err != nil {
			return misplaced{&entries[i], err}
		}
		*k = append(*k, CeremonyKey{label, algorithm})
	}
	return nil
}

// CeremonyAttributes are names of attributes that a module reads back.
type CeremonyAttributes []string

// UnmarshalYAML reads a list of names.
func (a *CeremonyAttributes) UnmarshalYAML(n *yaml.Node) error {
	var entries []yaml.Node
	if err := n.Decode(&entries); err != nil {
		return err
	}
	for i := range entries {
		name := entries[i].Value
		if _, known := AttributeOf(keystore.Info{}, name); !known {
			return misplaced{&entries[i], fmt.Errorf("unknown attribute %q: want always-sensitive, never-extractable or local", name)}
		}
		*a = append(*a, name)
	}
	return nil
}

// AttributeOf reports whether a key has an attribute of a ceremony.
func AttributeOf(k keystore.Info, name string) (has, known bool) {
	switch name {
	case "always-sensitive":
		return k.AlwaysSensitive, true
	case "never-extractable":
		return k.NeverExtractable, true
	case "local":
		return k.Local, true
	}
	return false, false
}

// ReadCeremony reads the file of a ceremony. Errors have file, line and column if they
// concern a place in it.
func ReadCeremony(path string) (*Ceremony, error) {
	data, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("ceremony: %w; docs/ceremony.md has an example", err)
	}
	c := &Ceremony{Signer: "ceremony"}
	if err := DecodeYAML(path, data, c); err != nil {
		return nil, exit.WithCode(err, exit.Usage)
	}
	for _, missing := range []struct {
		name string
		is   bool
	}{
		{"title", c.Title == ""}, {"operator", c.Operator == ""}, {"witnesses", len(c.Witnesses) == 0},
		{"keys", len(c.Keys) == 0}, {"transcript", c.Transcript == ""}, {"signer", c.Signer == ""},
	} {
		if missing.is {
			return nil, exit.Usagef("%s:1:1: %s is missing; docs/ceremony.md has an example", path, missing.name)
		}
	}
	for i, name := range c.Witnesses {
		if name == c.Operator || slices.Contains(c.Witnesses[:i], name) {
			return nil, exit.Usagef("%s:1:1: %q is named twice: the operator and the witnesses must be different people", path, name)
		}
	}
	if slices.ContainsFunc(c.Keys, func(k CeremonyKey) bool { return k.Label == c.Signer }) {
		return nil, exit.Usagef("%s:1:1: signer is %q, which is among the keys: the signing key must be used only for this ceremony", path, c.Signer)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	c.Transcript = within(dir, c.Transcript)
	return c, err
}
