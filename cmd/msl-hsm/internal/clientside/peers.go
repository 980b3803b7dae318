package clientside

import (
	"crypto/rsa"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// peerSchemes returns the schemes with which the server may authenticate itself.
func peerSchemes(c *config.Client, k *Client) (all []msl.EntityScheme, err error) {
	if c.ServerKey != "" {
		peer, err := peerKey(c)
		if err != nil {
			return nil, err
		}
		all = append(all, peer)
	}
	if c.ServerRoots != "" || c.ServerIntermediates != "" {
		a, err := keys.ReadAuthorities("client.server-", c.ServerRoots, c.ServerIntermediates)
		if err != nil {
			return nil, err
		}
		all = append(all, &entityauth.X509{Roots: a.Roots, Intermediates: a.Between})
	}
	if c.ServerPSK != "" {
		if k.peer, err = peerPSK(c, k.store); err != nil {
			return nil, err
		}
		all = append(all, k.peer)
	}
	return all, nil
}

func peerKey(c *config.Client) (msl.EntityScheme, error) {
	public, err := keys.ReadPublicKey(c.ServerKey)
	if err != nil {
		return nil, err
	}
	id := c.ServerKeyID
	if id == "" {
		if id, err = keystore.KeyID(public); err != nil {
			return nil, err
		}
	}
	server := &msl.Entity{Identity: c.Recipient, KeyID: id, PublicKey: public}
	only := msl.StaticDirectory{c.Recipient: server}
	if _, ok := public.(*rsa.PublicKey); ok {
		server.Scheme = "RSA"
		return &entityauth.RSA{Directory: only}, nil
	}
	server.Scheme = "ECC"
	return &entityauth.ECC{Directory: only}, nil
}

// peerPSK returns the scheme of a server whose pre-shared keys the client has, sealed
// like those of any peer.
func peerPSK(c *config.Client, store keys.Importing) (*entityauth.PSK, error) {
	file, err := keys.ReadPSK(c.ServerPSK)
	if err != nil {
		return nil, err
	}
	defer file.Wipe()
	if file.Identity != "" && msl.CanonicalName(file.Identity) != msl.CanonicalName(c.Recipient) {
		return nil, exit.Usagef("the keys in %s are those of %q, not of %q: give --recipient", c.ServerPSK, file.Identity, c.Recipient)
	}
	file.Identity = c.Recipient
	sealed, err := keys.SealPSK(file, store)
	if err != nil {
		return nil, err
	}
	return &entityauth.PSK{Store: store, Directory: msl.StaticDirectory{c.Recipient: {Identity: c.Recipient, Scheme: "PSK", PSK: sealed}}}, nil
}
