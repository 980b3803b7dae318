package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// The names that the lists of the configuration take, in the order that is the
// default. Those of entity and user schemes are the names on the wire; a key
// exchange whose scheme has several mechanisms goes by the mechanism.

func entitySchemeNames() []string {
	return []string{"PSK", "PSK_PROFILE", "MGK", "RSA", "ECC", "X509", "NONE", "NONE_SUFFIXED", "PROVISIONED", "MT_PROTECTED"}
}

func userSchemeNames() []string { return []string{"EMAIL_PASSWORD", "USER_ID_TOKEN"} }

func exchangeNames() []string {
	return []string{"SYMMETRIC_WRAPPED", "ASYMMETRIC_WRAPPED", tpmImport, "JWE_RSA", "JWEJS_RSA", "JWK_RSA", "JWE_LADDER", "JWK_LADDER", "DIFFIE_HELLMAN", onlyWhenNamed}
}

// onlyWhenNamed is the one key exchange that no default has: its padding is that
// of PKCS #1 v1.5.
const onlyWhenNamed = "JWK_RSAES"

// tpmImport is our own: no other stack knows it.
const tpmImport = "TPM_IMPORT"

// exchangeSchemes are the names on the wire, which entities are restricted to.
func exchangeSchemes() []string {
	return []string{"SYMMETRIC_WRAPPED", "ASYMMETRIC_WRAPPED", "JWE_LADDER", "JWK_LADDER", "DIFFIE_HELLMAN", tpmImport}
}

func groupNames() (names []string) {
	for _, g := range keyx.DHGroups() {
		names = append(names, g.ID)
	}
	return names
}

// Lists of names in the configuration: what is not among them, or there twice, is
// an error with its place.
type (
	entityList   []string
	userList     []string
	exchangeList []string
	groupList    []string
)

func (l *entityList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), entitySchemeNames())
}

func (l *userList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), userSchemeNames())
}

func (l *exchangeList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), exchangeNames())
}

func (l *groupList) UnmarshalYAML(n *yaml.Node) error {
	return decodeNames(n, (*[]string)(l), groupNames())
}

func decodeNames(n *yaml.Node, into *[]string, known []string) error {
	if err := n.Decode(into); err != nil {
		return err
	}
	for i := range *into {
		if err := checkNames((*into)[:i+1], known); err != nil {
			return misplaced{n.Content[i], err}
		}
	}
	if len(*into) == 0 {
		return fmt.Errorf("the list is empty: want some of %s", strings.Join(known, ", "))
	}
	return nil
}

// checkNames refuses names that are not known, or there twice.
func checkNames(names, known []string) error {
	for i, name := range names {
		switch {
		case !slices.Contains(known, name):
			return fmt.Errorf("unknown name %q: want some of %s", name, strings.Join(known, ", "))
		case slices.Contains(names[:i], name):
			return fmt.Errorf("%s is there twice", name)
		}
	}
	return nil
}

// A misplaced error knows its place in the file.
type misplaced struct {
	node *yaml.Node
	error
}
