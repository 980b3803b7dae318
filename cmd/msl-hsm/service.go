package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A service is a server with all that it holds open.
type service struct {
	store   keys
	state   *bolt.Server
	psk     *entityauth.PSK
	mgk     *entityauth.MGK
	devices *authority // that enroll here, or nil
	msl     *msl.Server

	connections *mslhttp.Connections
}

const makeServerKeys = "run msl-hsm key create --set server"

func (c *config) openService(log *slog.Logger) (*service, error) {
	state, err := c.openState("")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.firstStep(err)
	}
	if err != nil {
		return nil, err
	}
	s := &service{state: state, connections: c.Server.connections()}
	if s.store, err = c.openKeys(); err == nil {
		err = c.assemble(s, log)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.state.StartPruning(c.pruning(log))
	return s, nil
}

// firstStep is what a server that has no state file lacks first: the keys, since
// who makes those gets the file with them.
func (c *config) firstStep(noState error) (err error) {
	store, err := c.openKeys()
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if _, err := c.ownEntity(store); err != nil {
		return err
	}
	if _, err := c.issuer(store); err != nil {
		return err
	}
	return noState
}

// pruning lets the state forget a token when it cannot be renewed any more. It
// looks 24 times in the lifetime of one.
func (c *config) pruning(log *slog.Logger) bolt.Pruning {
	return bolt.Pruning{Keep: c.acceptedFor(), Interval: nonzero(c.Server.Lifetime, 24*time.Hour) / 24, Log: log}
}

// acceptedFor is how long a master token may be used or renewed.
func (c *config) acceptedFor() time.Duration {
	return (&msl.Issuer{Lifetime: c.Server.Lifetime, RenewExpired: c.Server.RenewExpired}).AcceptedFor()
}

// assemble looks the keys up and puts the server together.
func (c *config) assemble(s *service, log *slog.Logger) error {
	own, err := c.ownEntity(s.store)
	if err != nil {
		return err
	}
	custody, err := parseCustody("server.custody", c.Server.Custody)
	if err != nil {
		return err
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
	s.psk = &entityauth.PSK{Directory: s.state, Store: s.store}
	if c.Server.Enrollment.State != "" {
		if s.devices, err = c.openAuthority(s.state, s.store); err != nil {
			return err
		}
	}
	exchanges, err := c.keyExchanges(s.store, s.devices, s.psk, custody)
	if err != nil {
		return err
	}
	s.msl = &msl.Server{
		Name: c.Server.Identity, Local: own,
		KeyExchanges:  exchanges,
		Custody:       custody,
		Issuer:        issuer,
		State:         s.state,
		Directory:     s.state,
		ServiceTokens: services,
		Capabilities:  &msl.Capabilities{Compression: c.Server.Compression, Languages: c.Server.Languages},
		Limits:        c.Server.Limits.msl(),
		Log:           log,
	}
	if s.devices != nil {
		s.msl.JudgeToken = s.devices.tokenJudge(issuer)
	}
	s.state.PasswordsAtATime(c.Server.Limits.Passwords)
	s.msl.Users = c.userSchemes(s)
	s.msl.Peers, err = c.entities(s, log)
	return err
}

func parseCustody(setting, name string) (msl.Custody, error) {
	custody, err := msl.ParseCustody(name)
	if err != nil {
		return 0, usagef("%s is %q: want sealed, imported or shared", setting, name)
	}
	return custody, nil
}

func (l limitsConfig) msl() msl.Limits {
	return msl.Limits{
		Header: l.Header, Chunk: l.Chunk, Held: l.Held, Inflate: l.Inflate, Sessions: l.Sessions,
		ErrorsPerSecond: l.ErrorsPerSecond, ErrorsPerSource: l.ErrorsPerSource, PasswordsAtATime: l.Passwords,
		Unproven: l.Unproven, Proven: l.Proven,
	}
}

func (c *config) issuer(store keystore.Store) (*msl.Issuer, error) {
	i := &msl.Issuer{
		Name: c.Server.Identity, Store: store,
		RenewAfter: c.Server.RenewAfter, Lifetime: c.Server.Lifetime, RenewExpired: c.Server.RenewExpired,
	}
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
	var versions msl.KeyRing
	for _, v := range ring {
		id := fmt.Sprintf("%s service#%d", c.Server.Identity, v.Version)
		versions = append(versions, msl.SymmetricKey{KeyID: id, Encryption: v.Encryption, MAC: v.MAC})
	}
	return msl.ServiceTokenKeys{"": versions}, nil
}

// close lets go of every key object, and then of the sessions and the file.
func (s *service) close() error {
	var errs []error
	if s.msl != nil {
		errs = append(errs, s.msl.Close(), s.psk.Close())
		if s.mgk != nil {
			errs = append(errs, s.mgk.Close())
		}
		if objects, sessions := s.store.Live(); objects+sessions > 0 {
			errs = append(errs, fmt.Errorf("%d key objects and %d sessions were still in use at the end", objects, sessions))
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.devices != nil {
		errs = append(errs, s.devices.Close())
	}
	return errors.Join(append(errs, s.state.Close())...)
}
