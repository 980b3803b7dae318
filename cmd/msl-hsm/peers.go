package main

import (
	"context"
	"crypto/rsa"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A trusted entity is the one server that we believe.
type trusted msl.Entity

// Entity implements msl.Directory.
func (t *trusted) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if identity != t.Identity {
		return nil, keystore.ErrNotFound
	}
	return (*msl.Entity)(t), nil
}

func (c *clientConfig) checkPeers() error {
	if c.ServerKey == "" && c.ServerRoots == "" && c.ServerPSK == "" {
		return usagef("no server key configured: give --server-key FILE; on the server, msl-hsm key show msl-identity --public prints it")
	}
	return nil
}

// peerSchemes are the ways in which the server may prove itself.
func peerSchemes(c *clientConfig, k *client) (all []msl.EntityScheme, err error) {
	if c.ServerKey != "" {
		peer, err := peerKey(c)
		if err != nil {
			return nil, err
		}
		all = append(all, peer)
	}
	if c.ServerRoots != "" || c.ServerIntermediates != "" {
		a, err := readAuthorities("client.server-", c.ServerRoots, c.ServerIntermediates)
		if err != nil {
			return nil, err
		}
		all = append(all, &entityauth.X509{Roots: a.roots, Intermediates: a.between})
	}
	if c.ServerPSK != "" {
		if k.peer, err = peerPSK(c, k.store); err != nil {
			return nil, err
		}
		all = append(all, k.peer)
	}
	return all, nil
}

func peerKey(c *clientConfig) (msl.EntityScheme, error) {
	public, err := readPublicKey(c.ServerKey)
	if err != nil {
		return nil, err
	}
	id := c.ServerKeyID
	if id == "" {
		if id, err = keystore.KeyID(public); err != nil {
			return nil, err
		}
	}
	server := &trusted{Identity: c.Recipient, KeyID: id, PublicKey: public}
	if _, ok := public.(*rsa.PublicKey); ok {
		server.Scheme = "RSA"
		return &entityauth.RSA{Directory: server}, nil
	}
	server.Scheme = "ECC"
	return &entityauth.ECC{Directory: server}, nil
}

// peerPSK is a server whose pre-shared keys we have. They are sealed as those of
// any peer.
func peerPSK(c *clientConfig, store importing) (*entityauth.PSK, error) {
	file, err := readPSK(c.ServerPSK)
	if err != nil {
		return nil, err
	}
	defer file.wipe()
	if file.Identity != "" && file.Identity != c.Recipient {
		return nil, usagef("the keys in %s are those of %q, not of %q: give --recipient", c.ServerPSK, file.Identity, c.Recipient)
	}
	file.Identity = c.Recipient
	sealed, err := file.seal(store)
	if err != nil {
		return nil, err
	}
	return &entityauth.PSK{Store: store, Directory: &trusted{Identity: c.Recipient, Scheme: "PSK", PSK: sealed}}, nil
}
