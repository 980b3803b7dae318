package serverside

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// ownEntity returns the server's identity: pre-shared keys, a certificate, or the key
// itself.
func ownEntity(c *config.Config, store keystore.Store) (msl.LocalEntity, error) {
	if c.Server.PSKKeys != "" {
		set, err := keys.ProvisionedKeySet(store, c.Server.PSKKeys)
		return &entityauth.PSKEntity{Identity: c.Server.Identity, Keys: set}, err
	}
	label, next := keystore.RoleIdentity.Label(c.Keystore.Prefix), keys.MakeServerKeys
	if own := c.Server.Key; own != "" && own != label {
		label, next = own, "correct server.key, or "+keys.MakeKey(own, "rsa2048-sign")
	}
	signer, err := keys.SignerOf(store, label, next)
	if err != nil {
		return nil, err
	}
	if c.Server.Certificate == "" {
		return keys.KeyEntity(c.Server.Identity, c.Server.KeyID, signer)
	}
	entity, identity, err := keys.Certified(c.Server.Certificate, signer)
	c.Server.Identity = identity
	return entity, err
}
