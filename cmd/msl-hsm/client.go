package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A client is an MSL client with all that it holds open.
type client struct {
	msl   *msl.Client
	own   *entityauth.KeySet // pre-shared keys, or nil
	state *bolt.Client       // or nil
	store interface {
		keystore.Store
		keystore.Importer
	}
}

func (c *config) openClient(tell *story) (*client, error) {
	u, err := url.Parse(c.Client.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("URL of the server %q: want http://HOST:PORT/ or https://HOST/PATH", c.Client.URL)
	}
	peers, err := c.Client.peers()
	if err != nil {
		return nil, err
	}
	k := &client{}
	if err := c.fill(k, peers, tell); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (c *config) fill(k *client, peers []msl.EntityScheme, tell *story) error {
	if err := c.clientKeys(k); err != nil {
		return err
	}
	entity, exchange, err := c.clientEntity(k)
	if err != nil {
		return err
	}
	k.msl = &msl.Client{
		Entity: entity, Peers: peers, KeyExchanges: []msl.KeyExchange{exchange},
		Transport:    tell.transport(&mslhttp.Transport{URL: c.Client.URL}),
		UserAuth:     c.Client.userAuth,
		Capabilities: &msl.Capabilities{Compression: c.Client.Compression},
	}
	if c.Client.State == "" {
		k.msl.State = tell.state(&noState{})
		return nil
	}
	if k.state, err = bolt.OpenClient(c.Client.State, c.Client.Identity+" at "+c.Client.Recipient); err != nil {
		return err
	}
	k.msl.State = tell.state(k.state)
	return nil
}

// clientKeys opens the device's key store. Without one the keys are in memory.
func (c *config) clientKeys(k *client) error {
	if c.Keystore.URI == "" && c.Keystore.SoftHSM == "" {
		if c.Client.Key != "" {
			return usagef("the key %q is in no key store: give --keystore URI, or keystore.uri in the configuration", c.Client.Key)
		}
		k.store = soft.New()
		return nil
	}
	store, err := c.openKeys()
	k.store = store
	if err != nil {
		k.store = nil
	}
	return err
}

// clientEntity is who we are, with the key exchange that suits it.
func (c *config) clientEntity(k *client) (msl.EntityScheme, msl.KeyExchange, error) {
	asymmetric := &keyx.AsymmetricWrapped{Store: k.store}
	switch {
	case c.Client.PSK != "":
		psk, err := c.Client.ownPSK(k)
		return psk, &keyx.SymmetricWrapped{Store: k.store, PSK: psk}, err
	case c.Client.Certificate != "":
		entity, err := c.Client.ownX509(k.store)
		return entity, asymmetric, err
	case c.Client.Identity == "":
		return nil, nil, usagef("who sends? give --psk-file FILE, or --identity NAME with --key NAME")
	case c.Client.Key != "":
		entity, err := c.Client.ownRSA(k.store)
		return entity, asymmetric, err
	}
	return &entityauth.None{Identity: c.Client.Identity}, asymmetric, nil
}

func (c *clientConfig) ownPSK(k *client) (*entityauth.PSK, error) {
	file, err := readPSK(c.PSK)
	if err != nil {
		return nil, err
	}
	defer file.wipe()
	if c.Identity == "" {
		c.Identity = file.Identity
	}
	if c.Identity == "" {
		return nil, usagef("%s has no identity: give --identity NAME", c.PSK)
	}
	if k.own, err = file.own(k.store); err != nil {
		return nil, fmt.Errorf("pre-shared keys: %w", err)
	}
	return &entityauth.PSK{Identity: c.Identity, Keys: k.own}, nil
}

// signer finds our identity key.
func (c *clientConfig) signer(store keystore.Store) (crypto.Signer, error) {
	ring, err := store.Lookup(c.Key)
	if err != nil {
		return nil, missing(err, "make it with msl-hsm key create "+c.Key+" --algorithm rsa2048-sign")
	}
	signer, ok := ring[0].Key.(crypto.Signer)
	if !ok {
		return nil, usagef("key %q is for %v, and does not sign", c.Key, ring[0].Key.Algorithm())
	}
	return signer, nil
}

func (c *clientConfig) ownRSA(store keystore.Store) (*entityauth.RSA, error) {
	signer, err := c.signer(store)
	if err != nil {
		return nil, err
	}
	id := c.KeyID
	if id == "" {
		if id, err = keyIDOf(signer.Public()); err != nil {
			return nil, err
		}
	}
	return &entityauth.RSA{Identity: c.Identity, KeyID: id, Key: signer}, nil
}

func (c *clientConfig) ownX509(store keystore.Store) (*entityauth.X509, error) {
	text, err := os.ReadFile(c.Certificate)
	if err != nil {
		return nil, usagef("certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, usagef("certificate: %s has no PEM block CERTIFICATE", c.Certificate)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, usagef("certificate: %s: %w", c.Certificate, err)
	}
	if c.Identity, err = entityauth.DistinguishedName(certificate.RawSubject); err != nil {
		return nil, usagef("certificate: %s: %w", c.Certificate, err)
	}
	signer, err := c.signer(store)
	if err != nil {
		return nil, err
	}
	return &entityauth.X509{Certificate: certificate, Key: signer}, nil
}

// A trusted entity is the one server that we believe.
type trusted msl.Entity

// Entity implements msl.Directory.
func (t *trusted) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if identity != t.Identity {
		return nil, keystore.ErrNotFound
	}
	return (*msl.Entity)(t), nil
}

func (c *clientConfig) peers() ([]msl.EntityScheme, error) {
	if c.ServerKey == "" {
		return nil, usagef("whom to trust? give --server-key FILE: on the server, msl-hsm key show msl-identity --public prints it")
	}
	public, err := readPublicKey(c.ServerKey)
	if err != nil {
		return nil, err
	}
	id := c.ServerKeyID
	if id == "" {
		if id, err = keyIDOf(public); err != nil {
			return nil, err
		}
	}
	server := &trusted{Identity: c.Recipient, Scheme: "RSA", KeyID: id, PublicKey: public}
	return []msl.EntityScheme{&entityauth.RSA{Directory: server}}, nil
}

// userAuth gives the password once: a wrong one is not tried again.
func (c *clientConfig) userAuth(_ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
	if reason != 0 {
		return nil, nil
	}
	password, err := secret(orPrompt(c.Password), "password of "+user)
	if err != nil {
		return nil, err
	}
	defer clear(password)
	return userauth.EmailPasswordData(user, password), nil
}

// Close closes the keys before the store that they are in.
func (k *client) Close() error {
	var errs []error
	if k.msl != nil {
		errs = append(errs, k.msl.Close())
	}
	if k.own != nil {
		k.own.Release()
	}
	if k.state != nil {
		errs = append(errs, k.state.Close())
	}
	if k.store != nil {
		errs = append(errs, k.store.Close())
	}
	return errors.Join(errs...)
}
