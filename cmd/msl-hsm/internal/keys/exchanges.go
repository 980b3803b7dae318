package keys

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// ExchangeKeys are what key exchanges of one side are made of.
type ExchangeKeys struct {
	Store   keystore.Store
	Machine *Device         // a requester's TPM, or nil
	devices *Authority      // that a responder enrolled, or nil
	Psk     *entityauth.PSK // the keys of peers, or our own
	Groups  config.GroupList
	network string // that a responder issues tokens in

	Own       keystore.Revealer    // our own pre-shared wrapping key, for ladders
	wrapping  keystore.DataWrapper // the issuer's, for ladders where custody is shared
	revealing keystore.Revealer
}

// named makes the key exchange of that name.
func (k ExchangeKeys) named(name string) (msl.KeyExchange, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricWrapped{Store: k.Store, PSK: k.Psk}, nil
	case "ASYMMETRIC_WRAPPED":
		if k.Machine != nil {
			return &keyx.AsymmetricDecrypted{Pairs: k.Store, Sessions: k.Machine.sessions()}, nil
		}
		return &keyx.AsymmetricWrapped{Store: k.Store}, nil
	case config.TpmImport:
		return k.tpmImport(), nil
	case "JWE_RSA", "JWEJS_RSA", "JWK_RSA", config.OnlyWhenNamed:
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: k.Store}, nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.Ladder{
			Form: keyx.LadderForm(name), Store: k.Store, PSK: k.Psk, Network: k.network,
			Own: k.Own, Wrapping: k.wrapping, Revealing: k.revealing,
		}, nil
	case "DIFFIE_HELLMAN":
		groups, err := k.Groups.Find()
		return &keyx.DiffieHellman{Store: k.Store, Groups: groups}, err
	}
	return nil, exit.Usagef("unknown key exchange %q: want some of %s", name, strings.Join(config.ExchangeNames(), ", "))
}

// All makes the key exchanges of a list. One that the custody forbids on our side
// is an error where it was named on purpose, and left out otherwise.
func (k ExchangeKeys) All(names []string, named bool, custody msl.Custody, side msl.Side) ([]msl.KeyExchange, error) {
	var all []msl.KeyExchange
	for _, name := range names {
		x, err := k.named(name)
		if err != nil {
			return nil, err
		}
		why := k.impossible(x, custody, side)
		if why != "" && named {
			return nil, exit.Usagef("key exchange %s: %s", name, why)
		}
		if why == "" {
			all = append(all, x)
		}
	}
	return all, nil
}

// impossible tells why a key exchange cannot be had, or nothing.
func (k ExchangeKeys) impossible(x msl.KeyExchange, custody msl.Custody, side msl.Side) string {
	_, ladder := x.(*keyx.Ladder)
	_, imports := x.(*keyx.TPMImport)
	switch {
	case imports && side == msl.RespondingSide && k.devices == nil:
		return "it needs the attestation keys of devices: set server.enrollment"
	case imports && side == msl.RequestingSide && k.Machine == nil:
		return "it needs a TPM: --keystore tpm:?state=FILE"
	case custody == msl.CustodySealed && x.Exposes(side).Bytes:
		return x.Exposes(side).Why + "; custody must be imported or shared for it"
	case ladder && side == msl.RespondingSide && custody == msl.CustodyShared && k.wrapping == nil:
		return "where custody is shared it needs the issuer's wrapping key: import it with msl-hsm key import --set issuer"
	case ladder && side == msl.RequestingSide && k.Own == nil:
		return "it needs a pre-shared wrapping key: --psk-file FILE, or --psk-keys NAME with a key NAME-revealing"
	}
	return ""
}

// defaultExchanges are all that there are, first those whose keys stay in the
// store.
func defaultExchanges() []string {
	names := config.ExchangeNames()
	return names[:len(names)-1]
}

// KeyExchanges are those of the server.
func KeyExchanges(c *config.Config, store keystore.Store, devices *Authority, psk *entityauth.PSK, custody msl.Custody) ([]msl.KeyExchange, error) {
	k := ExchangeKeys{Store: store, devices: devices, Psk: psk, Groups: c.Server.DHGroups, network: c.Keystore.Prefix}
	if err := k.useIssuerWrapping(store, c.Keystore.Prefix); err != nil {
		return nil, err
	}
	if len(c.Server.KeyExchanges) > 0 {
		return k.All(c.Server.KeyExchanges, true, custody, msl.RespondingSide)
	}
	return k.All(defaultExchanges(), false, custody, msl.RespondingSide)
}

// useIssuerWrapping finds the issuer's wrapping key, if it was imported: it is
// two keys of the store, since no key may both wrap and reveal.
func (k *ExchangeKeys) useIssuerWrapping(store keystore.Store, prefix string) error {
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
		return Missing(err, "import it with msl-hsm key import --set issuer")
	}
	w, okW := wrapping[0].Key.(keystore.DataWrapper)
	r, okR := revealing[0].Key.(keystore.Revealer)
	if !okW || !okR || wrapping[0].Number != revealing[0].Number {
		return fmt.Errorf("keys %q and %q are not two halves of one wrapping key: %w; import it again", wrappingLabel, revealingLabel, keystore.ErrWrongKey)
	}
	k.wrapping, k.revealing = w, r
	return nil
}

// CloseExchanges lets go of the keys that some exchanges hold.
func CloseExchanges(all []msl.KeyExchange) error {
	var errs []error
	for _, x := range all {
		if holds, ok := x.(io.Closer); ok {
			errs = append(errs, holds.Close())
		}
	}
	return errors.Join(errs...)
}

// tpmImport is the key exchange TPM_IMPORT of either side.
func (k ExchangeKeys) tpmImport() *keyx.TPMImport {
	x := &keyx.TPMImport{Store: k.Store}
	if k.devices != nil {
		x.Verifier = fleet.Verifier{Authority: k.devices.Authority}
	}
	if k.Machine != nil {
		x.Device = k.Machine.ForMSL()
		if !k.Machine.device.Capabilities().EncryptDecrypt {
			x.Outside = soft.New()
		}
	}
	return x
}
