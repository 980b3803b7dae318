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
	Store  keystore.Store
	Groups config.GroupList

	// of a requester
	Machine *Device            // its TPM, or nil
	Keys    *entityauth.KeySet // its pre-shared keys, or nil
	Own     keystore.Revealer  // its pre-shared wrapping key, for ladders

	// of a responder
	devices   *Authority           // that it enrolled, or nil
	psk       *entityauth.PSK      // the keys of peers
	network   string               // that it issues tokens in
	wrapping  keystore.DataWrapper // the issuer's, for ladders where custody is shared
	revealing keystore.Revealer
}

// responder makes the key exchange of that name as a server does it.
func (k ExchangeKeys) responder(name string) (msl.Responder, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricResponder{Store: k.Store, PSK: k.psk}, nil
	case "ASYMMETRIC_WRAPPED":
		return &keyx.AsymmetricWrapped{Store: k.Store}, nil
	case config.TPMImport:
		x := &keyx.TPMResponder{Store: k.Store}
		if k.devices != nil {
			x.Verifier = fleet.Verifier{Authority: k.devices.Authority}
		}
		return x, nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderResponder{
			Form: keyx.LadderForm(name), Store: k.Store, PSK: k.psk, Network: k.network,
			Wrapping: k.wrapping, Revealing: k.revealing,
		}, nil
	}
	return k.either(name)
}

// offerer makes the key exchange of that name as a client does it.
func (k ExchangeKeys) offerer(name string) (msl.Offerer, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricOfferer{Keys: k.Keys}, nil
	case "ASYMMETRIC_WRAPPED":
		if k.Machine != nil {
			return &keyx.AsymmetricDecrypted{Pairs: k.Store, Sessions: k.Machine.sessions()}, nil
		}
		return &keyx.AsymmetricWrapped{Store: k.Store}, nil
	case config.TPMImport:
		return k.tpmOfferer(), nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderOfferer{Form: keyx.LadderForm(name), Store: k.Store, Own: k.Own}, nil
	}
	return k.either(name)
}

// A twoSided key exchange is the same for both sides.
type twoSided interface {
	msl.Responder
	msl.Offerer
}

func (k ExchangeKeys) either(name string) (twoSided, error) {
	switch name {
	case "JWE_RSA", "JWEJS_RSA", "JWK_RSA", config.OnlyWhenNamed:
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: k.Store}, nil
	case "DIFFIE_HELLMAN":
		groups, err := k.Groups.Find()
		return &keyx.DiffieHellman{Store: k.Store, Groups: groups}, err
	}
	return nil, exit.Usagef("unknown key exchange %q: want some of %s", name, strings.Join(config.ExchangeNames(), ", "))
}

// responders makes the key exchanges of a list as a server does them. One that is
// impossible is an error where it was named on purpose, and left out otherwise.
func (k ExchangeKeys) responders(names []string, named bool, custody msl.Custody) ([]msl.Responder, error) {
	var all []msl.Responder
	for _, name := range names {
		x, err := k.responder(name)
		if err != nil {
			return nil, err
		}
		why := k.cannotRespond(name, x.Exposes(), custody)
		if why != "" && named {
			return nil, exit.Usagef("key exchange %s: %s", name, why)
		}
		if why == "" {
			all = append(all, x)
		}
	}
	return all, nil
}

// Offerers makes the key exchanges of a list as a client does them.
func (k ExchangeKeys) Offerers(names []string, custody msl.Custody) ([]msl.Offerer, error) {
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

// cannotRespond tells why a key exchange cannot be had by a server, or nothing.
func (k ExchangeKeys) cannotRespond(name string, e msl.Exposure, custody msl.Custody) string {
	switch {
	case name == config.TPMImport && k.devices == nil:
		return "it needs the attestation keys of devices: set server.enrollment"
	case forbidden(e, custody):
		return e.Why + needsCustody
	case isLadder(name) && custody == msl.CustodyShared && k.wrapping == nil:
		return "where custody is shared it needs the issuer's wrapping key: import it with msl-hsm key import --set issuer"
	}
	return ""
}

// cannotOffer tells why a key exchange cannot be had by a client, or nothing.
func (k ExchangeKeys) cannotOffer(name string, e msl.Exposure, custody msl.Custody) string {
	switch {
	case name == config.TPMImport && k.Machine == nil:
		return "it needs a TPM: --keystore tpm:?state=FILE"
	case forbidden(e, custody):
		return e.Why + needsCustody
	case isLadder(name) && k.Own == nil:
		return "it needs a pre-shared wrapping key: --psk-file FILE, or --psk-keys NAME with a key NAME-revealing"
	}
	return ""
}

const needsCustody = "; custody must be imported or shared for it"

func forbidden(e msl.Exposure, custody msl.Custody) bool {
	return custody == msl.CustodySealed && e.Bytes
}

func isLadder(name string) bool { return strings.HasSuffix(name, "_LADDER") }

// defaultExchanges are all that there are, first those whose keys stay in the
// store.
func defaultExchanges() []string {
	names := config.ExchangeNames()
	return names[:len(names)-1]
}

// KeyExchanges are those of the server.
func KeyExchanges(c *config.Config, store keystore.Store, devices *Authority, psk *entityauth.PSK, custody msl.Custody) ([]msl.Responder, error) {
	k := ExchangeKeys{Store: store, devices: devices, psk: psk, Groups: c.Server.DHGroups, network: c.Keystore.Prefix}
	if err := k.useIssuerWrapping(store, c.Keystore.Prefix); err != nil {
		return nil, err
	}
	if len(c.Server.KeyExchanges) > 0 {
		return k.responders(c.Server.KeyExchanges, true, custody)
	}
	return k.responders(defaultExchanges(), false, custody)
}

// useIssuerWrapping finds the issuer's wrapping key, if it was imported: it is
// two keys of the store, since no key may both wrap and reveal.
func (k *ExchangeKeys) useIssuerWrapping(store keystore.Store, prefix string) error {
	wrapping, err := store.Lookup(prefix + "-issuer-wrapping")
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	revealing, err := store.Lookup(prefix + "-issuer-revealing")
	if err != nil {
		return Missing(err, "import it with msl-hsm key import --set issuer")
	}
	w, okW := wrapping[0].Key.(keystore.DataWrapper)
	r, okR := revealing[0].Key.(keystore.Revealer)
	if !okW || !okR || wrapping[0].Number != revealing[0].Number {
		return fmt.Errorf("keys %q and %q are not two halves of one wrapping key: %w; import it again", prefix+"-issuer-wrapping", prefix+"-issuer-revealing", keystore.ErrWrongKey)
	}
	k.wrapping, k.revealing = w, r
	return nil
}

// CloseExchanges lets go of the keys that some exchanges hold.
func CloseExchanges(all []msl.Offerer) error {
	var errs []error
	for _, x := range all {
		if holds, ok := x.(io.Closer); ok {
			errs = append(errs, holds.Close())
		}
	}
	return errors.Join(errs...)
}

// tpmOfferer is the key exchange TPM_IMPORT as a client does it.
func (k ExchangeKeys) tpmOfferer() *keyx.TPMOfferer {
	x := &keyx.TPMOfferer{Store: k.Store}
	if k.Machine != nil {
		x.Device = k.Machine.ForMSL()
		if !k.Machine.device.Capabilities().EncryptDecrypt {
			x.Outside = soft.New()
		}
	}
	return x
}
