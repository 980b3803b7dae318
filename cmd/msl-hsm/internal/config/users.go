package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"go.yaml.in/yaml/v3"
)

// A UserRule says which schemes some users may use to log in at some entities.
type UserRule struct {
	Entity  string   // beginning of the identities; empty for all
	User    string   // end of the names of the users; empty for all
	Schemes []string // permitted ones; empty for none
}

// UserRules are rules in order: the first one that matches an entity and a user decides.
// If none matches, the login is permitted.
type UserRules []UserRule

// Permit reports whether a user may log in at an entity with a scheme, or for an empty user,
// whether any user could.
func (rules UserRules) Permit(entity, user, scheme string) bool {
	for _, r := range rules {
		if !strings.HasPrefix(entity, r.Entity) || user != "" && !strings.HasSuffix(user, r.User) {
			continue
		}
		permits := slices.Contains(r.Schemes, scheme)
		if user != "" || r.User == "" || permits {
			return permits
		}
	}
	return true
}

// UnmarshalYAML reads a list like [{entity: kiosk-, user: "@example.com", schemes: []}].
func (rules *UserRules) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return misplaced{n, fmt.Errorf("must be a list of rules, such as [{entity: kiosk-, schemes: [USER_ID_TOKEN]}]")}
	}
	for _, item := range n.Content {
		var r UserRule
		if err := r.read(item); err != nil {
			return err
		}
		*rules = append(*rules, r)
	}
	return nil
}

func (r *UserRule) read(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return misplaced{n, fmt.Errorf("a rule must have fields, such as {entity: kiosk-, schemes: [USER_ID_TOKEN]}")}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := r.readField(n.Content[i], n.Content[i+1]); err != nil {
			return err
		}
	}
	if r.Schemes == nil {
		return misplaced{n, fmt.Errorf("a rule needs schemes, those that it permits; [] permits none")}
	}
	return nil
}

func (r *UserRule) readField(key, value *yaml.Node) error {
	var into any
	switch key.Value {
	case "entity":
		into = &r.Entity
	case "user":
		into = &r.User
	case "schemes":
		into = &r.Schemes
	default:
		return misplaced{key, fmt.Errorf("unknown field %q in a rule; it has entity, user, schemes", key.Value)}
	}
	if err := value.Decode(into); err != nil || value.Tag == "!!null" {
		return misplaced{value, fmt.Errorf("%s of a rule must be %s", key.Value, map[bool]string{true: "a list, such as [EMAIL_PASSWORD]", false: "a text"}[key.Value == "schemes"])}
	}
	r.Entity, r.User = msl.CanonicalName(r.Entity), msl.CanonicalName(r.User)
	if key.Value != "schemes" {
		return nil
	}
	if err := CheckNames(r.Schemes, UserSchemeNames()); err != nil {
		return misplaced{value, err}
	}
	return nil
}
