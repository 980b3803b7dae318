package serverside

import (
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// responding holds what the server's key exchanges need.
type responding struct {
	server    *config.Server
	store     keystore.Store
	random    io.Reader            // nil means the operating system
	devices   *keys.Authority      // enrolls devices, or nil
	psk       *entityauth.PSK      // the keys of peers
	network   string               // in which tokens are issued
	wrapping  keystore.DataWrapper // the issuer's, for ladders in shared custody
	revealing keystore.Revealer
}

func keyExchanges(c *config.Config, s *Service, custody msl.Custody) ([]msl.Responder, error) {
	k := responding{server: &c.Server, store: s.Store, random: s.random, devices: s.Devices, psk: s.psk, network: c.Keystore.Prefix}
	if err := k.useIssuerWrapping(s.Store, c.Keystore.Prefix); err != nil {
		return nil, err
	}
	if len(c.Server.KeyExchanges) > 0 {
		return k.responders(c.Server.KeyExchanges, true, custody)
	}
	return k.responders(defaultExchanges(), false, custody)
}

// defaultExchanges returns all key exchanges, those whose keys stay in the store first.
func defaultExchanges() []string {
	names := config.ExchangeNames()
	return names[:len(names)-1]
}

// responders makes the server side of the named key exchanges. An impossible one is an
// error if the configuration names it, and is left out otherwise.
func (k responding) responders(names []string, named bool, custody msl.Custody) ([]msl.Responder, error) {
	var all []msl.Responder
	for _, name := range names {
		x, err := k.responder(name)
		if err != nil {
			return nil, err
		}
		why := k.cannotRespond(name, custody)
		if why != "" && named {
			return nil, exit.Usagef("key exchange %s: %s", name, why)
		}
		if why == "" {
			all = append(all, x)
		}
	}
	return all, nil
}

// responder makes the server side of the named key exchange.
func (k responding) responder(name string) (msl.Responder, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricResponder{Store: k.store, PSK: k.psk, Rand: k.random}, nil
	case "ASYMMETRIC_WRAPPED":
		return &keyx.AsymmetricWrapped{Store: k.store, Rand: k.random}, nil
	case config.TPMImport:
		x := &keyx.TPMResponder{Store: k.store, Rand: k.random}
		if k.devices != nil {
			x.Verifier = fleet.Verifier{Authority: k.devices.Authority}
		}
		return x, nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderResponder{
			Form: keyx.LadderForm(name), Store: k.store, PSK: k.psk, Network: k.network,
			Wrapping: k.wrapping, Revealing: k.revealing, Rand: k.random,
		}, nil
	}
	return keys.TwoSidedExchange(name, k.store, k.server.DHGroups, k.random)
}

// cannotRespond returns why a server cannot use a key exchange, or "".
func (k responding) cannotRespond(name string, custody msl.Custody) string {
	if config.IsLadder(name) && custody == msl.CustodyShared && k.wrapping == nil {
		return "where custody is shared it needs the issuer's wrapping key: import it with msl-hsm key import --set issuer"
	}
	return k.server.CannotRespond(name, custody)
}

// useIssuerWrapping finds the issuer's wrapping key, if it was imported. It is two keys
// in the store, since no key may both wrap and reveal.
func (k *responding) useIssuerWrapping(store keystore.Store, prefix string) error {
	wrappingLabel, revealingLabel := keystore.RoleIssuerWrapping.Label(prefix), keystore.RoleIssuerRevealing.Label(prefix)
	wrapping, err := store.Lookup(wrappingLabel)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	revealing, err := store.Lookup(revealingLabel)
	if err != nil {
		return keys.Missing(err, "import it with msl-hsm key import --set issuer")
	}
	w, okW := wrapping[0].Key.(keystore.DataWrapper)
	r, okR := revealing[0].Key.(keystore.Revealer)
	if !okW || !okR || wrapping[0].Number != revealing[0].Number {
		return fmt.Errorf("keys %q and %q are not two halves of one wrapping key: %w; import it again", wrappingLabel, revealingLabel, keystore.ErrWrongKey)
	}
	k.wrapping, k.revealing = w, r
	return nil
}
