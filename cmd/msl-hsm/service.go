package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A service is a server with all that it holds open.
type service struct {
	store keys
	state *bolt.Server
	psk   *entityauth.PSK
	msl   *msl.Server
}

const makeServerKeys = "run msl-hsm key create --set server"

func (c *config) openService(log *slog.Logger) (*service, error) {
	state, err := c.openState("")
	if err != nil {
		return nil, err
	}
	s := &service{state: state}
	if s.store, err = c.openKeys(); err == nil {
		err = c.assemble(s, log)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// assemble looks the keys up and puts the server together.
func (c *config) assemble(s *service, log *slog.Logger) error {
	own, err := c.ownEntity(s.store)
	if err != nil {
		return err
	}
	custody, err := msl.ParseCustody(c.Server.Custody)
	if err != nil {
		return usagef("server.custody is %q: want sealed, imported or shared", c.Server.Custody)
	}
	issuer, err := c.issuer(s.store)
	if err != nil {
		return err
	}
	issuer.Shared = custody == msl.CustodyShared
	services, err := c.serviceTokenKeys(s.store)
	if err != nil {
		return err
	}
	roots, err := readRoots(c.Server.X509Roots)
	if err != nil {
		return err
	}
	s.psk = &entityauth.PSK{Directory: s.state, Store: s.store}
	s.msl = &msl.Server{
		Name: c.Server.Identity, Entity: own,
		Entities: []msl.EntityScheme{
			s.psk,
			&entityauth.RSA{Directory: s.state},
			&entityauth.X509{Roots: roots, Directory: s.state},
			&entityauth.None{Directory: s.state},
		},
		Users:         []msl.UserScheme{&userauth.EmailPassword{Verify: s.state.Verify}},
		KeyExchanges:  keyExchanges(s.store, s.psk),
		Custody:       custody,
		Issuer:        issuer,
		State:         s.state,
		Directory:     s.state,
		ServiceTokens: services,
		Capabilities:  &msl.Capabilities{Compression: c.Server.Compression, Languages: c.Server.Languages},
		Limits:        c.Server.Limits.msl(),
		Log:           log,
	}
	return nil
}

// keyExchanges are all that there are, in our order of preference: first those
// whose keys stay in the store. The server does without those that its custody
// forbids.
func keyExchanges(store keystore.Store, psk *entityauth.PSK) []msl.KeyExchange {
	return []msl.KeyExchange{
		&keyx.SymmetricWrapped{Store: store, PSK: psk},
		&keyx.AsymmetricWrapped{Store: store},
		&keyx.AsymmetricJOSE{Mechanism: keyx.JWERSA, Store: store},
		&keyx.AsymmetricJOSE{Mechanism: keyx.JWEJSRSA, Store: store},
		&keyx.AsymmetricJOSE{Mechanism: keyx.JWKRSA, Store: store},
		&keyx.Ladder{Form: keyx.JWELadder, Store: store, PSK: psk},
		&keyx.Ladder{Form: keyx.JWKLadder, Store: store, PSK: psk},
		&keyx.DiffieHellman{Store: store, Groups: keyx.DHGroups()},
	}
}

func (l limitsConfig) msl() msl.Limits {
	return msl.Limits{
		Header: l.Header, Chunk: l.Chunk, Inflate: l.Inflate, Sessions: l.Sessions,
		ErrorsPerSecond: l.ErrorsPerSecond, ErrorsPerSource: l.ErrorsPerSource, PasswordsAtATime: l.Passwords,
	}
}

// ownEntity is the server's identity: the newest version of its RSA key.
func (c *config) ownEntity(store keystore.Store) (*entityauth.RSA, error) {
	label := c.Server.Key
	if label == "" {
		label = c.Keystore.Prefix + "-identity"
	}
	ring, err := store.Lookup(label)
	if err != nil {
		return nil, missing(err, makeServerKeys)
	}
	signer, ok := ring[0].Key.(crypto.Signer)
	if !ok {
		return nil, usagef("key %q is for %v, and does not sign: server.key wants an rsa2048-sign key", label, ring[0].Key.Algorithm())
	}
	id := c.Server.KeyID
	if id == "" {
		if id, err = keyIDOf(signer.Public()); err != nil {
			return nil, err
		}
	}
	return &entityauth.RSA{Identity: c.Server.Identity, KeyID: id, Key: signer}, nil
}

func (c *config) issuer(store keystore.Store) (*msl.Issuer, error) {
	i := &msl.Issuer{Name: c.Server.Identity, Store: store, RenewAfter: c.Server.RenewAfter, Lifetime: c.Server.Lifetime}
	for _, role := range []string{"-seal-session", "-seal-wrapping", "-seal-mac"} {
		if _, err := store.Lookup(c.Keystore.Prefix + role); err != nil {
			return nil, missing(err, makeServerKeys)
		}
	}
	ring, err := issuerRing(store, c.Keystore.Prefix+"-issuer-encryption", c.Keystore.Prefix+"-issuer-mac")
	i.Keys = ring
	return i, err
}

// issuerRing pairs the versions of two keys, newest first. A version that only
// one of them has is left out: a rotation was cut off there.
func issuerRing(store keystore.Store, encryption, mac string) (ring []msl.IssuerKeys, err error) {
	ciphers, err := store.Lookup(encryption)
	if err != nil {
		return nil, missing(err, makeServerKeys)
	}
	macs, err := store.Lookup(mac)
	if err != nil {
		return nil, missing(err, makeServerKeys)
	}
	for _, c := range ciphers {
		for _, m := range macs {
			if c.Number != m.Number {
				continue
			}
			cipher, okC := c.Key.(keystore.Cipher)
			tag, okM := m.Key.(keystore.MAC)
			if !okC || !okM {
				return nil, fmt.Errorf("keys %q and %q: %w", encryption, mac, keystore.ErrWrongKey)
			}
			ring = append(ring, msl.IssuerKeys{Version: c.Number, Encryption: cipher, MAC: tag})
		}
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("keys %q and %q have no version in common: %w; %s --rotate", encryption, mac, keystore.ErrNotFound, makeServerKeys)
	}
	return ring, nil
}

func (c *config) serviceTokenKeys(store keystore.Store) (msl.ServiceTokenKeys, error) {
	ring, err := issuerRing(store, c.Keystore.Prefix+"-service-encryption", c.Keystore.Prefix+"-service-mac")
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s service#%d", c.Server.Identity, ring[0].Version)
	return msl.ServiceTokenKeys{"": msl.SymmetricKey{KeyID: name, Encryption: ring[0].Encryption, MAC: ring[0].MAC}}, nil
}

// readRoots reads the certificates that vouch for entities. No file means that
// nobody does.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("server.x509-roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, usagef("server.x509-roots: %s has no certificate in PEM", path)
	}
	return roots, nil
}

// close lets go of every key object, and then of the sessions and the file.
func (s *service) close() error {
	var errs []error
	if s.msl != nil {
		errs = append(errs, s.msl.Close(), s.psk.Close())
		if objects, sessions := s.store.Live(); objects+sessions > 0 {
			errs = append(errs, fmt.Errorf("%d key objects and %d sessions were still in use at the end", objects, sessions))
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(append(errs, s.state.Close())...)
}
