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
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A service is a server with all that it holds open.
type service struct {
	store   keys
	state   *bolt.Server
	psk     *entityauth.PSK
	mgk     *entityauth.MGK
	devices *authority // that enroll here, or nil
	msl     *msl.Server

	endpoint    *fleet.Endpoint // where devices enroll, or nil
	connections *mslhttp.Connections
}

const makeServerKeys = "run msl-hsm key create --set server"

func openService(c *config, log *slog.Logger) (*service, error) {
	state, err := openState(c, "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, firstStep(c, err)
	}
	if err != nil {
		return nil, err
	}
	s := &service{state: state, connections: connections(&c.Server)}
	if s.store, err = openKeys(c); err == nil {
		err = assemble(c, s, log)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.state.StartPruning(pruning(c, log))
	return s, nil
}

// firstStep is what a server that has no state file lacks first: the keys, since
// who makes those gets the file with them.
func firstStep(c *config, noState error) (err error) {
	store, err := openKeys(c)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if _, err := ownEntity(c, store); err != nil {
		return err
	}
	if _, err := issuer(c, store); err != nil {
		return err
	}
	return noState
}

// pruning lets the state forget a token when it cannot be renewed any more. It
// looks 24 times in the lifetime of one.
func pruning(c *config, log *slog.Logger) bolt.Pruning {
	return bolt.Pruning{Keep: acceptedFor(c), Interval: nonzero(c.Server.Lifetime, 24*time.Hour) / 24, Log: log}
}

// acceptedFor is how long a master token may be used or renewed.
func acceptedFor(c *config) time.Duration {
	return (&msl.Issuer{Lifetime: c.Server.Lifetime, RenewExpired: c.Server.RenewExpired}).AcceptedFor()
}

// assemble looks the keys up and puts the server together.
func assemble(c *config, s *service, log *slog.Logger) error {
	own, err := ownEntity(c, s.store)
	if err != nil {
		return err
	}
	custody, err := parseCustody("server.custody", c.Server.Custody)
	if err != nil {
		return err
	}
	issuer, err := issuer(c, s.store)
	if err != nil {
		return err
	}
	issuer.Shared = custody == msl.CustodyShared
	services, err := serviceTokenKeys(c, s.store)
	if err != nil {
		return err
	}
	s.psk = &entityauth.PSK{Directory: s.state, Store: s.store}
	if c.Server.Enrollment.State != "" {
		if s.devices, err = openAuthority(c, s.state, s.store); err != nil {
			return err
		}
	}
	exchanges, err := keyExchanges(c, s.store, s.devices, s.psk, custody)
	if err != nil {
		return err
	}
	s.msl = &msl.Server{
		Name: c.Server.Identity, Entity: own,
		KeyExchanges:  exchanges,
		Custody:       custody,
		Issuer:        issuer,
		State:         s.state,
		Directory:     s.state,
		ServiceTokens: services,
		Capabilities:  &msl.Capabilities{Compression: c.Server.Compression, Languages: c.Server.Languages},
		Limits:        messageLimits(c.Server.Limits),
		Log:           log,
	}
	if s.devices != nil {
		s.msl.JudgeToken = s.devices.TokenJudge(issuer)
	}
	s.state.PasswordsAtATime(c.Server.Limits.Passwords)
	s.msl.Users = userSchemes(c, s)
	s.msl.Entities, err = entitySchemes(c, s, log)
	return err
}

func parseCustody(setting, name string) (msl.Custody, error) {
	custody, err := msl.ParseCustody(name)
	if err != nil {
		return 0, usagef("%s is %q: want sealed, imported or shared", setting, name)
	}
	return custody, nil
}

func messageLimits(l limitsConfig) msl.Limits {
	return msl.Limits{
		Header: l.Header, Chunk: l.Chunk, Held: l.Held, Inflate: l.Inflate, Sessions: l.Sessions,
		ErrorsPerSecond: l.ErrorsPerSecond, ErrorsPerSource: l.ErrorsPerSource, PasswordsAtATime: l.Passwords,
		Unproven: l.Unproven, Proven: l.Proven,
	}
}

func issuer(c *config, store keystore.Store) (*msl.Issuer, error) {
	i := &msl.Issuer{
		Name: c.Server.Identity, Store: store,
		RenewAfter: c.Server.RenewAfter, Lifetime: c.Server.Lifetime, RenewExpired: c.Server.RenewExpired,
	}
	for _, role := range keystore.SealingRoles() {
		if _, err := store.Lookup(role.Label(c.Keystore.Prefix)); err != nil {
			return nil, missing(err, makeServerKeys)
		}
	}
	ring, err := issuerRing(store, keystore.RoleIssuerEncryption.Label(c.Keystore.Prefix), keystore.RoleIssuerMAC.Label(c.Keystore.Prefix))
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
			cipher, errC := keystore.As[keystore.Cipher](encryption, c)
			tag, errM := keystore.As[keystore.MAC](mac, m)
			if err := errors.Join(errC, errM); err != nil {
				return nil, err
			}
			ring = append(ring, msl.IssuerKeys{Version: c.Number, Encryption: cipher, MAC: tag})
		}
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("keys %q and %q have no version in common: %w; %s --rotate", encryption, mac, keystore.ErrNotFound, makeServerKeys)
	}
	return ring, nil
}

func serviceTokenKeys(c *config, store keystore.Store) (msl.ServiceTokenKeys, error) {
	ring, err := issuerRing(store, keystore.RoleServiceEncryption.Label(c.Keystore.Prefix), keystore.RoleServiceMAC.Label(c.Keystore.Prefix))
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
	if s.endpoint != nil {
		errs = append(errs, s.endpoint.Close())
	}
	if s.msl != nil {
		errs = append(errs, s.msl.Close(), s.psk.Close(), closeExchanges(s.msl.KeyExchanges))
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
