package clientside

import (
	"errors"
	"io"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// offering holds what the client's key exchanges need.
type offering struct {
	store   keystore.Store
	random  io.Reader // nil means the operating system
	groups  config.GroupList
	device  *keys.Device       // the client's TPM, or nil
	keys    *entityauth.KeySet // the client's pre-shared keys, or nil
	reveals keystore.Revealer  // revealing half of their wrapping key, for ladders, or nil
}

// offerers makes the client side of the named key exchanges.
func (k offering) offerers(names []string, custody msl.Custody) ([]msl.Offerer, error) {
	var all []msl.Offerer
	for _, name := range names {
		x, err := k.offerer(name)
		if err != nil {
			return nil, err
		}
		if why := k.cannotOffer(name, x.Exposes(), custody); why != "" {
			return nil, exit.Usagef("key exchange %s: %s", name, why)
		}
		all = append(all, x)
	}
	return all, nil
}

// offerer makes the client side of the named key exchange.
func (k offering) offerer(name string) (msl.Offerer, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricOfferer{Keys: k.keys}, nil
	case "ASYMMETRIC_WRAPPED":
		if k.device != nil {
			return &keyx.AsymmetricDecrypted{Pairs: k.store, Sessions: k.device.Sessions()}, nil
		}
		return &keyx.AsymmetricWrapped{Store: k.store}, nil
	case config.TPMImport:
		return k.tpmOfferer(), nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderOfferer{Form: keyx.LadderForm(name), Store: k.store, Own: k.reveals}, nil
	}
	return keys.TwoSidedExchange(name, k.store, k.groups, k.random)
}

// tpmOfferer makes the client side of the key exchange TPM_IMPORT.
func (k offering) tpmOfferer() *keyx.TPMOfferer {
	x := &keyx.TPMOfferer{Store: k.store}
	if k.device != nil {
		x.Device = k.device.ForMSL()
		if !k.device.HasAES() {
			x.Outside = k.device.Sessions()
			x.Store = x.Outside
		}
	}
	return x
}

// cannotOffer returns why a client cannot use a key exchange, or "".
func (k offering) cannotOffer(name string, e msl.Exposure, custody msl.Custody) string {
	switch {
	case name == config.TPMImport && k.device == nil:
		return "it needs a TPM: --keystore tpm:?state=FILE"
	case name == "SYMMETRIC_WRAPPED" && (k.keys == nil || k.keys.Wrapping == nil):
		return "it needs a pre-shared wrapping key: --psk-file FILE, or --psk-keys NAME"
	case config.Forbids(custody, e) != "":
		return config.Forbids(custody, e)
	case config.IsLadder(name) && k.reveals == nil:
		return "it needs a pre-shared wrapping key: --psk-file FILE, or --psk-keys NAME with a key NAME-revealing"
	}
	return ""
}

// closeExchanges releases the keys that some exchanges hold.
func closeExchanges(all []msl.Offerer) error {
	var errs []error
	for _, x := range all {
		if holds, ok := x.(io.Closer); ok {
			errs = append(errs, holds.Close())
		}
	}
	return errors.Join(errs...)
}
