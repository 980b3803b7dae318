package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// entities are the schemes by which entities may prove themselves: those that the
// configuration lists, or all that it gives what they need.
func (c *config) entities(s *service, log *slog.Logger) ([]msl.EntityScheme, error) {
	names := []string(c.Server.EntitySchemes)
	if names == nil {
		names = entitySchemeNames()
	}
	hidden := &entityauth.MTProtected{Tokens: s.msl.OpenMasterToken, Directory: s.state}
	var all []msl.EntityScheme
	for _, name := range names {
		setting := c.lacks(name)
		if setting != "" && c.Server.EntitySchemes != nil {
			return nil, usagef("server.entity-schemes names %s, which needs %s", name, setting)
		}
		if setting != "" {
			continue
		}
		scheme, err := c.entity(s, name, hidden, log)
		if err != nil {
			return nil, err
		}
		all = append(all, scheme)
		if name != hidden.Scheme() {
			hidden.Inner = append(hidden.Inner, scheme)
		}
	}
	return all, nil
}

// lacks returns the setting that a scheme needs and does not have, if any.
func (c *config) lacks(name string) string {
	switch {
	case name == "MGK" && len(c.Server.ModelGroups) == 0:
		return "server.model-groups"
	case name == "PROVISIONED" && c.Server.Provisioned == "":
		return "server.provisioned"
	}
	return ""
}

// entity makes one scheme.
func (c *config) entity(s *service, name string, hidden msl.EntityScheme, log *slog.Logger) (msl.EntityScheme, error) {
	switch name {
	case "PSK":
		return s.psk, nil
	case "PSK_PROFILE":
		return &entityauth.PSKProfile{KeySets: s.psk}, nil
	case "MGK":
		return c.modelGroups(s)
	case "RSA":
		return &entityauth.RSA{Directory: s.state}, nil
	case "ECC":
		return &entityauth.ECC{Directory: s.state}, nil
	case "X509":
		return c.certificates(s, log)
	case "NONE":
		return &entityauth.None{Directory: s.state}, nil
	case "NONE_SUFFIXED":
		return &entityauth.NoneSuffixed{Directory: s.state}, nil
	case "PROVISIONED":
		return &entityauth.Provisioned{Assign: c.assign}, nil
	case "MT_PROTECTED":
		return hidden, nil
	}
	return nil, usagef("unknown entity scheme %q: want some of %s", name, strings.Join(entitySchemeNames(), ", "))
}

// assign gives a new identity to an entity that has none.
func (c *config) assign(context.Context) (string, error) {
	b := make([]byte, 16)
	rand.Read(b)
	return c.Server.Provisioned + hex.EncodeToString(b), nil
}

// certificates is the scheme X509.
func (c *config) certificates(s *service, log *slog.Logger) (msl.EntityScheme, error) {
	a, err := readAuthorities("server.x509-", c.Server.X509Roots, c.Server.X509Intermediates)
	if err != nil {
		return nil, err
	}
	scheme := &entityauth.X509{
		Roots: a.roots, Intermediates: a.between, Directory: s.state, RequireCRL: c.Server.X509RequireCRL,
	}
	if c.Server.X509CRL != "" {
		lists, err := openCRLs("server.x509-crl", c.Server.X509CRL, a.all, log)
		if err != nil {
			return nil, err
		}
		scheme.CRLs = lists.current
	}
	if s.devices != nil {
		return deviceCertificates{scheme, s.devices}, nil
	}
	return scheme, nil
}

// modelGroups is the scheme MGK, with the groups of the configuration.
func (c *config) modelGroups(s *service) (msl.EntityScheme, error) {
	groups := map[string]entityauth.ModelGroup{}
	for prefix, label := range c.Server.ModelGroups {
		key, err := groupKey(s.store, label)
		if err != nil {
			return nil, err
		}
		groups[prefix] = entityauth.ModelGroup{Name: label, Key: key}
	}
	s.mgk = &entityauth.MGK{Importer: s.store, Directory: s.state, Group: func(_ context.Context, identity string) (entityauth.ModelGroup, error) {
		prefix, found := longestPrefix(c.Server.ModelGroups, identity)
		if !found {
			return entityauth.ModelGroup{}, keystore.ErrNotFound
		}
		return groups[prefix], nil
	}}
	return s.mgk, nil
}

// longestPrefix finds which of the prefixes an identity begins with.
func longestPrefix(groups map[string]string, identity string) (prefix string, found bool) {
	for p := range groups {
		if strings.HasPrefix(identity, p) && (!found || len(p) > len(prefix)) {
			prefix, found = p, true
		}
	}
	return prefix, found
}

// groupKey finds the master key of a model group. The keys of its devices follow
// from it, so a group has one version.
func groupKey(store keystore.Store, label string) (keystore.Cipher, error) {
	ring, err := store.Lookup(label)
	if err != nil {
		return nil, missing(err, "make it with msl-hsm key create "+label+" --algorithm aes128-cbc, or import it")
	}
	if len(ring) > 1 {
		return nil, usagef("the group key %q has %d versions, but its devices know only one: destroy the others, or use another label and other identities for the new one", label, len(ring))
	}
	key, ok := ring[0].Key.(keystore.Cipher)
	if !ok {
		return nil, usagef("the group key %q is for %v: want aes128-cbc", label, ring[0].Key.Algorithm())
	}
	return key, nil
}

// userSchemes are how users may prove themselves.
func (c *config) userSchemes(s *service) []msl.UserScheme {
	names := []string(c.Server.UserSchemes)
	if names == nil {
		names = userSchemeNames()
	}
	var all []msl.UserScheme
	for _, name := range names {
		switch name {
		case "EMAIL_PASSWORD":
			all = append(all, &userauth.EmailPassword{Verify: s.state.Verify, Find: s.state.FindUser})
		case "USER_ID_TOKEN":
			all = append(all, &userauth.UserIDToken{Issuer: s.msl.Issuer, Tokens: s.msl.OpenMasterToken, Revoked: s.state.Revoked, Dates: s.state})
		}
	}
	return all
}
