package serverside

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// entitySchemes returns the schemes that entities may use: those listed in the
// configuration or, without a list, all whose required settings are given.
func entitySchemes(c *config.Config, s *Service, log *slog.Logger) ([]msl.EntityScheme, error) {
	names := []string(c.Server.EntitySchemes)
	if names == nil {
		names = config.EntitySchemeNames()
	}
	hidden := &entityauth.MTProtected{Tokens: s.MSL.OpenMasterToken, Directory: s.State}
	var all []msl.EntityScheme
	for _, name := range names {
		if c.Server.Lacks(name) != "" {
			continue
		}
		scheme, err := entityScheme(c, s, name, hidden, log)
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

func entityScheme(c *config.Config, s *Service, name string, hidden msl.EntityScheme, log *slog.Logger) (msl.EntityScheme, error) {
	switch name {
	case "PSK":
		return s.psk, nil
	case "PSK_PROFILE":
		return &entityauth.PSKProfile{KeySets: s.psk}, nil
	case "MGK":
		return modelGroups(c, s)
	case "RSA":
		return &entityauth.RSA{Directory: s.State}, nil
	case "ECC":
		return &entityauth.ECC{Directory: s.State}, nil
	case "X509":
		return certificates(c, s, log)
	case "NONE":
		return &entityauth.None{Directory: s.State}, nil
	case "NONE_SUFFIXED":
		return &entityauth.NoneSuffixed{Directory: s.State}, nil
	case "PROVISIONED":
		return &entityauth.Provisioned{Assign: func(context.Context) (string, error) { return assignKey(c, s.random) }}, nil
	case "MT_PROTECTED":
		return hidden, nil
	}
	return nil, exit.Usagef("unknown entity scheme %q: want some of %s", name, strings.Join(config.EntitySchemeNames(), ", "))
}

// assignKey returns a new identity for an entity that has none.
func assignKey(c *config.Config, random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, 16)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", err
	}
	return c.Server.Provisioned + hex.EncodeToString(b), nil
}

// certificates makes the scheme X509.
func certificates(c *config.Config, s *Service, log *slog.Logger) (msl.EntityScheme, error) {
	a, err := keys.ReadAuthorities("server.x509-", c.Server.X509Roots, c.Server.X509Intermediates)
	if err != nil {
		return nil, err
	}
	scheme := &entityauth.X509{
		Roots: a.Roots, Intermediates: a.Between, Directory: s.State, RequireCRL: c.Server.X509RequireCRL,
	}
	if c.Server.X509CRL != "" {
		lists, err := s.openCRLs("server.x509-crl", c.Server.X509CRL, a.All, log)
		if err != nil {
			return nil, err
		}
		scheme.CRLs = lists.Current
	}
	if s.Devices != nil {
		return fleet.X509{X509: scheme, Authority: s.Devices.Authority}, nil
	}
	return scheme, nil
}

// modelGroups makes the scheme MGK, with the configured groups.
func modelGroups(c *config.Config, s *Service) (msl.EntityScheme, error) {
	groups := map[string]entityauth.ModelGroup{}
	for prefix, label := range c.Server.ModelGroups {
		key, err := GroupKey(s.Store, label)
		if err != nil {
			return nil, err
		}
		groups[prefix] = entityauth.ModelGroup{Name: label, Key: key}
	}
	s.mgk = &entityauth.MGK{Importer: s.Store, Directory: s.State, Group: func(_ context.Context, identity string) (entityauth.ModelGroup, error) {
		prefix, found := LongestPrefix(c.Server.ModelGroups, identity)
		if !found {
			return entityauth.ModelGroup{}, keystore.ErrNotFound
		}
		return groups[prefix], nil
	}}
	return s.mgk, nil
}

// LongestPrefix finds the longest of the prefixes that an identity begins with.
func LongestPrefix(groups map[string]string, identity string) (prefix string, found bool) {
	for p := range groups {
		if strings.HasPrefix(msl.CanonicalName(identity), msl.CanonicalName(p)) && (!found || len(p) > len(prefix)) {
			prefix, found = p, true
		}
	}
	return prefix, found
}

// GroupKey finds the master key of a model group. The keys of the group's devices are
// derived from it, so it has only one version.
func GroupKey(store keystore.Store, label string) (keystore.Cipher, error) {
	ring, err := store.Lookup(label)
	if err != nil {
		return nil, keys.Missing(err, keys.MakeKey(label, "aes128-cbc")+", or import it")
	}
	if len(ring) > 1 {
		return nil, exit.Usagef("the group key %q has %d versions, but its devices know only one: destroy the others, or use another label and other identities for the new one", label, len(ring))
	}
	key, ok := ring[0].Key.(keystore.Cipher)
	if !ok {
		return nil, exit.Usagef("the group key %q is for %v: want aes128-cbc", label, ring[0].Key.Algorithm())
	}
	return key, nil
}

// userSchemes returns the schemes by which users may authenticate.
func userSchemes(c *config.Config, s *Service) []msl.UserScheme {
	names := []string(c.Server.UserSchemes)
	if names == nil {
		names = config.UserSchemeNames()
	}
	var all []msl.UserScheme
	for _, name := range names {
		switch name {
		case "EMAIL_PASSWORD":
			all = append(all, &userauth.EmailPassword{Verify: s.State.Verify, Find: s.State.FindUser})
		case "USER_ID_TOKEN":
			permitted := func(ctx context.Context, identity, user string) (bool, error) {
				return s.MSL.PermitUser(ctx, identity, user, name)
			}
			all = append(all, &userauth.UserIDToken{Issuer: s.MSL.Issuer, Tokens: s.MSL.OpenMasterToken, Permitted: permitted, Revoked: s.State.Revoked, Dates: s.State})
		}
	}
	return all
}
