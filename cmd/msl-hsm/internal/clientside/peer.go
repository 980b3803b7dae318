package clientside

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// usePeer makes this side's server in a peer-to-peer network, which issues the tokens
// under which the peer answers. They end with the connection, so no state is kept.
func usePeer(c *config.Config, k *Client) error {
	if k.device != nil {
		return exit.Usagef("a peer issues tokens, and a TPM makes no keys for that: give a token of a PKCS #11 module, or soft:FILE")
	}
	name := c.Client.Identity
	if c.Keystore.None() {
		if err := issuerInMemory(c, k.store); err != nil {
			return err
		}
	}
	issuer, err := msl.FindIssuer(k.store, name, c.Keystore.Prefix)
	if err != nil {
		return keys.Missing(err, keys.MakeServerKeys+"; a peer issues tokens, too")
	}
	issuer.Shared, issuer.Rand = k.MSL.Custody == msl.CustodyShared, k.random
	k.server = &msl.Server{
		Name: name, Local: k.MSL.Local, Peers: k.MSL.Peers, Custody: k.MSL.Custody, Issuer: issuer,
		KeyExchanges: peerResponders(k), State: &msl.MemoryState{}, Capabilities: k.MSL.Capabilities, Limits: k.MSL.Limits,
	}
	return nil
}

// issuerInMemory makes the keys of an issuer for a client without a key store.
func issuerInMemory(c *config.Config, store keys.Importing) error {
	maker, ok := store.(keystore.Store)
	admin, makes := maker.(keystore.Admin)
	if !ok || !makes {
		return errors.New("the keys of an issuer cannot be made in memory")
	}
	set, err := keys.KeySet("server", c.Keystore.Prefix)
	if err != nil {
		return err
	}
	return keys.Complete(admin, set, false, func(string, keys.Provision, uint32) {})
}

// peerResponders returns the key exchanges that the peer may request: all that the
// custody allows.
func peerResponders(k *Client) (all []msl.Responder) {
	candidates := []msl.Responder{&keyx.AsymmetricWrapped{Store: k.store, Rand: k.random}}
	if k.peer != nil {
		candidates = append(candidates, &keyx.SymmetricResponder{Store: k.store, PSK: k.peer, Rand: k.random})
	}
	for _, name := range []string{"JWE_RSA", "JWEJS_RSA", "JWK_RSA", "DIFFIE_HELLMAN"} {
		if x, err := keys.TwoSidedExchange(name, k.store, config.GroupList(nil), k.random); err == nil {
			candidates = append(candidates, x)
		}
	}
	for _, x := range candidates {
		if config.Forbids(k.MSL.Custody, x.Exposes()) == "" {
			all = append(all, x)
		}
	}
	return all
}

func (k *Client) conn(ctx context.Context) (*msl.Conn, error) {
	raw, _, err := k.lasting.open(ctx)
	if err != nil {
		return nil, err
	}
	if k.peerConn == nil || k.peerRaw != raw {
		k.peerConn, k.peerRaw = msl.NewConn(raw, k.server, k.MSL), raw
	}
	return k.peerConn, nil
}

// Do sends a request and returns its answer, in the configured network.
func (k *Client) Do(ctx context.Context, r *msl.Request) (*msl.Response, error) {
	if k.server == nil {
		return k.MSL.Do(ctx, r)
	}
	c, err := k.conn(ctx)
	if err != nil {
		return nil, err
	}
	return c.Request(ctx, r)
}

// Send sends a message that expects no answer, in the configured network.
func (k *Client) Send(ctx context.Context, r *msl.Request) error {
	if k.server == nil {
		return k.MSL.Send(ctx, r)
	}
	c, err := k.conn(ctx)
	if err != nil {
		return err
	}
	return c.Send(ctx, r)
}
