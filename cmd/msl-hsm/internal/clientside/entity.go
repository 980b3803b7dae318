package clientside

import (
	"crypto/ecdsa"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// clientScheme returns the client's entity scheme: the configured one, or the one that
// matches the other settings. The entity that MT_PROTECTED hides uses the latter.
func clientScheme(c *config.Config, store keystore.Store) (string, error) {
	named := c.Client.EntityScheme
	if named != "" && !slices.Contains(config.EntitySchemeNames(), named) {
		return "", exit.Usagef("unknown entity scheme %q: want one of %s", named, strings.Join(config.EntitySchemeNames(), ", "))
	}
	if named != "" && named != "MT_PROTECTED" {
		return named, nil
	}
	switch {
	case (c.Client.PSK != "" || c.Client.PSKKeys != "") && c.Client.Profile != "":
		return "PSK_PROFILE", nil
	case c.Client.PSK != "" || c.Client.PSKKeys != "":
		return "PSK", nil
	case c.Client.Certificate != "":
		return "X509", nil
	case c.Client.Identity == "":
		return "", exit.Usagef("no sender configured: give --psk-file FILE, or --identity NAME with --key NAME")
	case c.Client.Key != "":
		return schemeOfKey(&c.Client, store)
	case c.Client.Suffix != "":
		return "NONE_SUFFIXED", nil
	}
	return "NONE", nil
}

func schemeOfKey(c *config.Client, store keystore.Store) (string, error) {
	signer, err := keys.SignerOf(store, c.Key, keys.MakeKey(c.Key, "rsa2048-sign"))
	if err != nil {
		return "", err
	}
	if _, ok := signer.Public().(*ecdsa.PublicKey); ok {
		return "ECC", nil
	}
	return "RSA", nil
}

func clientEntity(c *config.Config, k *Client, scheme string) (msl.LocalEntity, error) {
	own := &c.Client
	switch scheme {
	case "PSK", "PSK_PROFILE", "MGK":
		return withKeySet(own, k, scheme)
	case "RSA", "ECC", "X509":
		return withKeyPair(own, k.store, scheme)
	case "PROVISIONED":
		own.Identity, own.Suffix, own.Profile = "", "", ""
		return &entityauth.ProvisionedEntity{}, nil
	}
	if own.Identity == "" {
		return nil, exit.Usagef("entity scheme %s needs --identity NAME", scheme)
	}
	own.Profile = ""
	if scheme == "NONE" {
		own.Suffix = ""
		return &entityauth.NoneEntity{Identity: own.Identity}, nil
	}
	if own.Suffix == "" {
		return nil, exit.Usagef("entity scheme NONE_SUFFIXED needs --suffix NAME")
	}
	return &entityauth.NoneSuffixedEntity{Root: own.Identity, Suffix: own.Suffix}, nil
}

// withKeySet returns an entity with a symmetric key set.
func withKeySet(c *config.Client, k *Client, scheme string) (msl.LocalEntity, error) {
	c.Suffix = ""
	if err := openKeySet(c, k, scheme != "MGK"); err != nil {
		return nil, err
	}
	switch {
	case scheme == "PSK_PROFILE" && c.Profile == "":
		return nil, exit.Usagef("entity scheme PSK_PROFILE needs --profile NAME")
	case scheme == "PSK_PROFILE":
		return &entityauth.PSKProfileEntity{KeyID: c.Identity, Profile: c.Profile, Keys: k.own}, nil
	}
	c.Profile = ""
	if scheme == "MGK" {
		return &entityauth.MGKEntity{Identity: c.Identity, Keys: k.own}, nil
	}
	return &entityauth.PSKEntity{Identity: c.Identity, Keys: k.own}, nil
}

// openKeySet finds the client's pre-shared keys, in the key store or in a file.
func openKeySet(c *config.Client, k *Client, wrapping bool) (err error) {
	ladders := slices.ContainsFunc(c.KeyExchanges, func(name string) bool { return strings.HasSuffix(name, "_LADDER") })
	switch {
	case c.PSKKeys != "" && c.Identity == "":
		return exit.Usagef("no identity for the keys %q: give --identity NAME", c.PSKKeys)
	case c.PSKKeys != "":
		if k.own, err = keys.ProvisionedKeySet(k.store, c.PSKKeys); err == nil && ladders {
			k.reveals, err = revealer(k.store, c.PSKKeys)
		}
		if err == nil && k.own.Wrapping == nil && slices.Contains(c.KeyExchanges, "SYMMETRIC_WRAPPED") {
			err = exit.Usagef("a TPM does not unwrap session keys: omit SYMMETRIC_WRAPPED; see msl-hsm tpm import-psk --help")
		}
		return err
	case c.PSK == "":
		return exit.Usagef("entity scheme %s needs --psk-file FILE", c.EntityScheme)
	}
	file, err := keys.ReadPSK(c.PSK)
	if err != nil {
		return err
	}
	defer file.Wipe()
	if c.Identity == "" {
		c.Identity = file.Identity
	}
	if c.Identity == "" {
		return exit.Usagef("%s has no identity: give --identity NAME", c.PSK)
	}
	if k.own, err = file.KeySet(k.store, wrapping); err == nil && ladders {
		k.reveals, err = file.Revealer(k.store)
	}
	if err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	return nil
}

// revealer finds the revealing half of a wrapping key.
func revealer(store keystore.Store, prefix string) (keystore.Revealer, error) {
	r, err := keystore.Find[keystore.Revealer](store, keystore.RolePSKRevealing.Label(prefix))
	if err != nil {
		return nil, keys.Missing(err, keys.ImportKeys(prefix, "psk-ladder")+", or into a TPM with msl-hsm tpm import-psk")
	}
	return r, nil
}

// withKeyPair returns an entity with a key pair in the key store.
func withKeyPair(c *config.Client, store keystore.Store, scheme string) (msl.LocalEntity, error) {
	c.Suffix, c.Profile = "", ""
	if c.Key == "" {
		return nil, exit.Usagef("entity scheme %s needs --key NAME, the label of its key in the key store", scheme)
	}
	algorithm := map[bool]string{true: "ecdsa-p256", false: "rsa2048-sign"}[scheme == "ECC"]
	signer, err := keys.SignerOf(store, c.Key, keys.MakeKey(c.Key, algorithm))
	if err != nil {
		return nil, err
	}
	if scheme == "X509" {
		if c.Certificate == "" {
			return nil, exit.Usagef("entity scheme X509 needs --certificate FILE")
		}
		entity, identity, err := keys.Certified(c.Certificate, signer)
		c.Identity = identity
		return entity, err
	}
	if c.Identity == "" {
		return nil, exit.Usagef("entity scheme %s needs --identity NAME", scheme)
	}
	entity, err := keys.KeyEntity(c.Identity, c.KeyID, signer)
	if err == nil && entity.Scheme() != scheme {
		return nil, exit.Usagef("key %q is for the entity scheme %s, not %s", c.Key, entity.Scheme(), scheme)
	}
	return entity, err
}
