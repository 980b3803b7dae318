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
	store   keystore.Store
	machine *machine        // a requester's TPM, or nil
	devices *authority      // that a responder enrolled, or nil
	psk     *entityauth.PSK // the keys of peers, or our own
	groups  groupList
	network string // that a responder issues tokens in

	own       keystore.Revealer    // our own pre-shared wrapping key, for ladders
	wrapping  keystore.DataWrapper // the issuer's, for ladders where custody is shared
	revealing keystore.Revealer
}

// named makes the key exchange of that name.
func (k exchangeKeys) named(name string) (msl.KeyExchange, error) {
	switch name {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricWrapped{Store: k.store, PSK: k.psk}, nil
	case "ASYMMETRIC_WRAPPED":
		if k.machine != nil {
			return &keyx.AsymmetricDecrypted{Pairs: k.store, Sessions: k.machine.sessions()}, nil
		}
		return &keyx.AsymmetricWrapped{Store: k.store}, nil
	case tpmImport:
		return k.tpmImport(), nil
	case "JWE_RSA", "JWEJS_RSA", "JWK_RSA", onlyWhenNamed:
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: k.store}, nil
	case "JWE_LADDER", "JWK_LADDER":
		return &keyx.Ladder{
			Form: keyx.LadderForm(name), Store: k.store, PSK: k.psk, Network: k.network,
			Own: k.own, Wrapping: k.wrapping, Revealing: k.revealing,
		}, nil
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

// all makes the key exchanges of a list. One that the custody forbids on our side
// is an error where it was named on purpose, and left out otherwise.
func (k exchangeKeys) all(names []string, named bool, custody msl.Custody, side msl.Side) ([]msl.KeyExchange, error) {
	var all []msl.KeyExchange
	for _, name := range names {
		x, err := k.named(name)
		if err != nil {
			return nil, err
		}
		why := k.impossible(x, custody, side)
		if why != "" && named {
			return nil, usagef("key exchange %s: %s", name, why)
		}
		if why == "" {
			all = append(all, x)
		}
	}
	return all, nil
}

// impossible tells why a key exchange cannot be had, or nothing.
func (k exchangeKeys) impossible(x msl.KeyExchange, custody msl.Custody, side msl.Side) string {
	_, ladder := x.(*keyx.Ladder)
	_, imports := x.(*keyx.TPMImport)
	switch {
	case imports && side == msl.RespondingSide && k.devices == nil:
		return "it needs the attestation keys of devices: set server.enrollment"
	case imports && side == msl.RequestingSide && k.machine == nil:
		return "it needs a TPM: --keystore tpm:?state=FILE"
	case custody == msl.CustodySealed && x.Exposes(side).Bytes:
		return x.Exposes(side).Why + "; custody must be imported or shared for it"
	case ladder && side == msl.RespondingSide && custody == msl.CustodyShared && k.wrapping == nil:
		return "where custody is shared it needs the issuer's wrapping key: import it with msl-hsm key import --set issuer"
	case ladder && side == msl.RequestingSide && k.own == nil:
		return "it needs a pre-shared wrapping key: --psk-file FILE, or --psk-keys NAME with a key NAME-revealing"
	}
	return ""
}

// defaultExchanges are all that there are, first those whose keys stay in the
// store.
func defaultExchanges() []string {
	names := exchangeNames()
	return names[:len(names)-1]
}

// keyExchanges are those of the server.
func keyExchanges(c *config, store keystore.Store, devices *authority, psk *entityauth.PSK, custody msl.Custody) ([]msl.KeyExchange, error) {
	k := exchangeKeys{store: store, devices: devices, psk: psk, groups: c.Server.DHGroups, network: c.Keystore.Prefix}
	if err := k.useIssuerWrapping(store, c.Keystore.Prefix); err != nil {
		return nil, err
	}
	if len(c.Server.KeyExchanges) > 0 {
		return k.all(c.Server.KeyExchanges, true, custody, msl.RespondingSide)
	}
	return k.all(defaultExchanges(), false, custody, msl.RespondingSide)
}

// useIssuerWrapping finds the issuer's wrapping key, if it was imported: it is
// two keys of the store, since no key may both wrap and reveal.
func (k *exchangeKeys) useIssuerWrapping(store keystore.Store, prefix string) error {
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
		return missing(err, "import it with msl-hsm key import --set issuer")
	}
	w, okW := wrapping[0].Key.(keystore.DataWrapper)
	r, okR := revealing[0].Key.(keystore.Revealer)
	if !okW || !okR || wrapping[0].Number != revealing[0].Number {
		return fmt.Errorf("keys %q and %q are not two halves of one wrapping key: %w; import it again", wrappingLabel, revealingLabel, keystore.ErrWrongKey)
	}
	k.wrapping, k.revealing = w, r
	return nil
}

// closeExchanges lets go of the keys that some exchanges hold.
func closeExchanges(all []msl.KeyExchange) error {
	var errs []error
	for _, x := range all {
		if holds, ok := x.(io.Closer); ok {
			errs = append(errs, holds.Close())
		}
	}
	return errors.Join(errs...)
}
