package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// The names that the lists of the configuration take, in the order that is the
// default. Those of entity and user schemes are the names on the wire; a key
// exchange whose scheme has several mechanisms goes by the mechanism.

// EntitySchemeNames returns the names for server.entity-schemes.
func EntitySchemeNames() []string {
	return []string{"PSK", "PSK_PROFILE", "MGK", "RSA", "ECC", "X509", "NONE", "NONE_SUFFIXED", "PROVISIONED", "MT_PROTECTED"}
}

// UserSchemeNames returns the names for server.user-schemes.
func UserSchemeNames() []string { return []string{"EMAIL_PASSWORD", "USER_ID_TOKEN"} }

// ExchangeNames returns the names for server.key-exchanges and client.key-exchanges.
func ExchangeNames() []string {
	return []string{"SYMMETRIC_WRAPPED", "ASYMMETRIC_WRAPPED", TPMImport, "JWE_RSA", "JWEJS_RSA", "JWK_RSA", "JWE_LADDER", "JWK_LADDER", "DIFFIE_HELLMAN", OnlyWhenNamed}
}

// OnlyWhenNamed is the key exchange that no default includes, because its padding is that
// of PKCS #1 v1.5.
const OnlyWhenNamed = "JWK_RSAES"

// TPMImport is specific to msl-hsm: no other stack knows it.
const TPMImport = "TPM_IMPORT"

// ExchangeSchemes returns the names on the wire, to which entities are restricted.
func ExchangeSchemes() []string {
	return []string{"SYMMETRIC_WRAPPED", "ASYMMETRIC_WRAPPED", "JWE_LADDER", "JWK_LADDER", "DIFFIE_HELLMAN", TPMImport}
}

// GroupNames returns the names for server.dh-groups.
func GroupNames() []string { return keyx.DHGroupIDs() }

// Lists of names in the configuration: an unknown or repeated name is an error with its
// place.
type (
	entityList   []string
	userList     []string
	exchangeList []string
	GroupList    []string
)

func (l *entityList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), EntitySchemeNames())
}

func (l *userList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), UserSchemeNames())
}

func (l *exchangeList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), ExchangeNames())
}

// UnmarshalYAML reads a list of names.
func (l *GroupList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), GroupNames())
}

func decodeNames(n *yaml.Node, into *[]string, known []string) error {
	if err := n.Decode(into); err != nil {
		return err
	}
	for i := range *into {
		if err := CheckNames((*into)[:i+1], known); err != nil {
			return misplaced{n.Content[i], err}
		}
	}
	if len(*into) == 0 {
		return fmt.Errorf("the list is empty: want some of %s", strings.Join(known, ", "))
	}
	return nil
}

// CheckNames refuses unknown and repeated names.
func CheckNames(names, known []string) error {
	for i, name := range names {
		switch {
		case !slices.Contains(known, name):
			return fmt.Errorf("unknown name %q: want some of %s", name, strings.Join(known, ", "))
		case slices.Contains(names[:i], name):
			return fmt.Errorf("%s is listed twice", name)
		}
	}
	return nil
}

// A misplaced error knows its place in the file.
type misplaced struct {
	node *yaml.Node
	error
}

// Find returns the parameter groups of a list; no list means all of them.
func (l GroupList) Find() ([]keyx.DHGroup, error) {
	if len(l) == 0 {
		return keyx.DHGroups(), nil
	}
	groups := make([]keyx.DHGroup, len(l))
	for i, name := range l {
		g, ok := keyx.FindDHGroup(name)
		if !ok {
			return nil, exit.Usagef("unknown Diffie-Hellman group %q: want some of %s", name, strings.Join(GroupNames(), ", "))
		}
		groups[i] = g
	}
	return groups, nil
}
