package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// exchangeKeys are what key exchanges of one side are made of.
type exchangeKeys struct {
	store  keystore.Store
	groups groupList

	// of a requester
	machine *machine           // its TPM, or nil
	keys    *entityauth.KeySet // its pre-shared keys, or nil
	own     keystore.Revealer  // its pre-shared wrapping key, for ladders

	// of a responder
	devices   *authority           // that it enrolled, or nil
	psk       *entityauth.PSK      // the keys of peers
	network   string               // that it issues tokens in
	wrapping  keystore.DataWrapper // the issuer's, for ladders where custody is shared
	revealing keystore.Revealer
}

// responder makes the key exchange of that name as a server does it.
func (k exchangeKeys) responder(name string) (msl.Responder, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricResponder{Store: k.store, PSK: k.psk}, nil
	case "ASYMMETRIC_WRAPPED":
		return &keyx.AsymmetricWrapped{Store: k.store}, nil
	case tpmImport:
		x := &keyx.TPMResponder{Store: k.store}
		if k.devices != nil {
			x.Verifier = tpmVerifier{k.devices}
		}
		return x, nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderResponder{
			Form: keyx.LadderForm(name), Store: k.store, PSK: k.psk, Network: k.network,
			Wrapping: k.wrapping, Revealing: k.revealing,
		}, nil
	}
	return k.either(name)
}

// offerer makes the key exchange of that name as a client does it.
func (k exchangeKeys) offerer(name string) (msl.Offerer, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricOfferer{Keys: k.keys}, nil
	case "ASYMMETRIC_WRAPPED":
		if k.machine != nil {
			return &keyx.AsymmetricDecrypted{Pairs: k.store, Sessions: k.machine.sessions()}, nil
		}
		return &keyx.AsymmetricWrapped{Store: k.store}, nil
	case tpmImport:
		return k.tpmOfferer(), nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.LadderOfferer{Form: keyx.LadderForm(name), Store: k.store, Own: k.own}, nil
	}
	return k.either(name)
}

// A twoSided key exchange is the same for both sides.
type twoSided interface {
	msl.Responder
	msl.Offerer
}

func (k exchangeKeys) either(name string) (twoSided, error) {
	switch name {
	case "JWE_RSA", "JWEJS_RSA", "JWK_RSA", onlyWhenNamed:
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: k.store}, nil
	case "DIFFIE_HELLMAN":
		groups, err := k.groups.find()
		return &keyx.DiffieHellman{Store: k.store, Groups: groups}, err
	}
	return nil, usagef("unknown key exchange %q: want some of %s", name, strings.Join(exchangeNames(), ", "))
}

// find returns the parameter groups of a list; no list means all of them.
func (l groupList) find() ([]keyx.DHGroup, error) {
	if len(l) == 0 {
		return keyx.DHGroups(), nil
	}
	groups := make([]keyx.DHGroup, len(l))
	for i, name := range l {
		g, ok := keyx.FindDHGroup(name)
		if !ok {
			return nil, usagef("unknown Diffie-Hellman group %q: want some of %s", name, strings.Join(groupNames(), ", "))
		}
		groups[i] = g
	}
	return groups, nil
}

// responders makes the key exchanges of a list as a server does them. One that is
// impossible is an error where it was named on purpose, and left out otherwise.
func (k exchangeKeys) responders(names []string, named bool, custody msl.Custody) ([]msl.Responder, error) {
	var all []msl.Responder
	for _, name := range names {
		x, err := k.responder(name)
		if err != nil {
			return nil, err
		}
		why := k.cannotRespond(name, x.Exposes(), custody)
		if why != "" && named {
			return nil, usagef("key exchange %s: %s", name, why)
		}
		if why == "" {
			all = append(all, x)
		}
	}
	return all, nil
}

// offerers makes the key exchanges of a list as a client does them.
func (k exchangeKeys) offerers(names []string, custody msl.Custody) ([]msl.Offerer, error) {
	var all []msl.Offerer
	for _, name := range names {
		x, err := k.offerer(name)
		if err != nil {
			return nil, err
		}
		if why := k.cannotOffer(name, x.Exposes(), custody); why != "" {
			return nil, usagef("key exchange %s: %s", name, why)
		}
		all = append(all, x)
	}
	return all, nil
}

// cannotRespond tells why a key exchange cannot be had by a server, or nothing.
func (k exchangeKeys) cannotRespond(name string, e msl.Exposure, custody msl.Custody) string {
	switch {
	case name == tpmImport && k.devices == nil:
		return "it needs the attestation keys of devices: set server.enrollment"
	case forbidden(e, custody):
		return e.Why + needsCustody
	case isLadder(name) && custody == msl.CustodyShared && k.wrapping == nil:
		return "where custody is shared it needs the issuer's wrapping key: import it with msl-hsm key import --set issuer"
	}
	return ""
}

// cannotOffer tells why a key exchange cannot be had by a client, or nothing.
func (k exchangeKeys) cannotOffer(name string, e msl.Exposure, custody msl.Custody) string {
	switch {
	case name == tpmImport && k.machine == nil:
		return "it needs a TPM: --keystore tpm:?state=FILE"
	case forbidden(e, custody):
		return e.Why + needsCustody
	case isLadder(name) && k.own == nil:
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
	names := exchangeNames()
	return names[:len(names)-1]
}

// keyExchanges are those of the server.
func (c *config) keyExchanges(store keystore.Store, devices *authority, psk *entityauth.PSK, custody msl.Custody) ([]msl.Responder, error) {
	k := exchangeKeys{store: store, devices: devices, psk: psk, groups: c.Server.DHGroups, network: c.Keystore.Prefix}
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
func (k *exchangeKeys) useIssuerWrapping(store keystore.Store, prefix string) error {
	wrapping, err := store.Lookup(prefix + "-issuer-wrapping")
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	revealing, err := store.Lookup(prefix + "-issuer-revealing")
	if err != nil {
		return missing(err, "import it with msl-hsm key import --set issuer")
	}
	w, okW := wrapping[0].Key.(keystore.DataWrapper)
	r, okR := revealing[0].Key.(keystore.Revealer)
	if !okW || !okR || wrapping[0].Number != revealing[0].Number {
		return fmt.Errorf("keys %q and %q are not two halves of one wrapping key: %w; import it again", prefix+"-issuer-wrapping", prefix+"-issuer-revealing", keystore.ErrWrongKey)
	}
	k.wrapping, k.revealing = w, r
	return nil
}

// closeExchanges lets go of the keys that some exchanges hold.
func closeExchanges(all []msl.Offerer) error {
	var errs []error
	for _, x := range all {
		if holds, ok := x.(io.Closer); ok {
			errs = append(errs, holds.Close())
		}
	}
	return errors.Join(errs...)
}
