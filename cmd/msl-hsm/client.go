package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A client is an MSL client with all that it holds open.
type client struct {
	msl     *msl.Client
	own     *entityauth.KeySet // pre-shared keys, or nil
	reveals keystore.Revealer  // the wrapping one of them, for ladders, or nil
	peer    *entityauth.PSK    // pre-shared keys of the server, or nil
	earlier *earlierSession    // or nil
	state   *bolt.Client       // or nil
	machine *machine           // with the TPM that the keys are in, or nil
	store   importing
	web     *http.Client
}

// An importing store takes session keys that this process has seen.
type importing interface {
	keystore.Store
	keystore.Importer
}

func (c *config) openClient(ctx context.Context, tell *story) (*client, error) {
	if err := c.Client.checkURL(); err != nil {
		return nil, err
	}
	if err := c.Client.checkPeers(); err != nil {
		return nil, err
	}
	k := &client{}
	if err := c.fill(ctx, k, tell); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (c *config) fill(ctx context.Context, k *client, tell *story) error {
	if err := c.clientKeys(k); err != nil {
		return err
	}
	peers, err := c.Client.peers(k)
	if err != nil {
		return err
	}
	entity, err := c.whoSends(k)
	if err != nil {
		return err
	}
	if k.web, err = c.web(k.store); err != nil {
		return err
	}
	k.msl = &msl.Client{
		Local: entity, Peers: peers,
		Transport:    tell.transport(&mslhttp.Transport{URL: c.Client.URL, Client: k.web, MaxAnswer: c.Client.Limits.Answer}),
		Limits:       msl.Limits{Header: c.Client.Limits.Header, Chunk: c.Client.Limits.Chunk, Inflate: c.Client.Limits.Inflate},
		Capabilities: &msl.Capabilities{Compression: c.Client.Compression},
	}
	if err := c.clientExchanges(k); err != nil {
		return err
	}
	if err := c.useEarlier(ctx, k); err != nil {
		return err
	}
	if k.msl.UserAuth, err = c.Client.userAuth(k.earlier); err != nil {
		return err
	}
	if c.Client.State != "" {
		if err := c.warnOfState(k, tell); err != nil {
			return err
		}
		if k.state, err = bolt.OpenClient(c.Client.State, c.Client.owner()); err != nil {
			return err
		}
	}
	state, err := c.anchored(ctx, k, tell)
	if err == nil {
		k.msl.State = tell.state(state)
	}
	return err
}

func (c *clientConfig) checkURL() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return usagef("URL of the server %q: want http://HOST:PORT/ or https://HOST/PATH", c.URL)
	}
	return nil
}

// whoSends is who we are: as the configuration says, or as a server enrolled this
// machine.
func (c *config) whoSends(k *client) (msl.LocalEntity, error) {
	if k.machine != nil && c.Client.namesNobody() {
		return c.machineEntity(k.machine)
	}
	scheme, err := c.clientScheme(k.store)
	if err != nil {
		return nil, err
	}
	return c.clientEntity(k, scheme)
}

func (c *clientConfig) namesNobody() bool {
	return c.Identity == "" && c.Key == "" && c.Certificate == "" && c.PSK == "" && c.PSKKeys == "" && c.EntityScheme != "PROVISIONED"
}

// owner names whose tokens a state file keeps.
func (c *clientConfig) owner() string {
	name := c.Identity
	switch {
	case c.Suffix != "":
		name += "." + c.Suffix
	case c.Profile != "":
		name += "-" + c.Profile
	}
	return name + " at " + c.Recipient
}

// clientKeys opens the device's key store. Without one the keys are in memory.
func (c *config) clientKeys(k *client) error {
	if c.Keystore.URI == "" && c.Keystore.SoftHSM == "" {
		for _, label := range []string{c.Client.Key, c.Client.PSKKeys} {
			if label != "" {
				return usagef("no key store for the key %q: give --keystore URI, or keystore.uri in the configuration", label)
			}
		}
		k.store = soft.New()
		return nil
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		m, err := c.openMachine(false)
		if err == nil {
			k.machine, k.store = m, m.store
		}
		return err
	}
	store, err := c.openKeys()
	if err == nil {
		k.store = store
	}
	return err
}

// clientExchanges are what the client offers.
func (c *config) clientExchanges(k *client) error {
	custody, err := parseCustody("custody of the client", c.Client.Custody)
	if err != nil {
		return err
	}
	names := []string(c.Client.KeyExchanges)
	if names == nil {
		names = []string{"ASYMMETRIC_WRAPPED"}
		switch {
		case k.own != nil && k.own.Wrapping != nil:
			names = []string{"SYMMETRIC_WRAPPED"}
		case k.machine != nil && custody == msl.CustodySealed:
			names = []string{tpmImport}
		}
	}
	if err := checkNames(names, exchangeNames()); err != nil {
		return usagef("key exchange: %w", err)
	}
	keys := exchangeKeys{store: k.store, machine: k.machine, keys: k.own, own: k.reveals}
	if c.Client.DHGroup != "" {
		keys.groups = groupList{c.Client.DHGroup}
	}
	k.msl.Custody = custody
	k.msl.KeyExchanges, err = keys.offerers(names, custody)
	return err
}

// userAuth gives the proof of a user once: one that was refused is not tried
// again.
func (c *clientConfig) userAuth(earlier *earlierSession) (func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error), error) {
	prove := func(ctx context.Context, user string) (*msl.UserAuthData, error) {
		password, err := secret(orPrompt(c.Password), "password of "+user)
		if err != nil {
			return nil, err
		}
		defer password.Close()
		return userauth.EmailPasswordData(user, password.Bytes()), nil
	}
	switch {
	case c.UserScheme == "USER_ID_TOKEN" && earlier == nil:
		return nil, usagef("user scheme USER_ID_TOKEN needs the tokens of an earlier session: give --earlier-state FILE")
	case c.UserScheme == "USER_ID_TOKEN":
		prove = earlier.userTokens
	case c.UserScheme != "EMAIL_PASSWORD":
		return nil, usagef("unknown user scheme %q: want EMAIL_PASSWORD or USER_ID_TOKEN", c.UserScheme)
	}
	return func(ctx context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
		if reason != 0 {
			return nil, nil
		}
		return prove(ctx, user)
	}, nil
}

// An earlierSession is the tokens of another state file of the same entity: to
// hide the entity, or to prove a user.
type earlierSession struct {
	msl   *msl.Client
	state *bolt.Client
}

// useEarlier opens the earlier session, and hides our entity with it where the
// scheme is MT_PROTECTED.
func (c *config) useEarlier(ctx context.Context, k *client) error {
	hide := c.Client.EntityScheme == "MT_PROTECTED"
	if c.Client.EarlierState == "" {
		if hide {
			return usagef("entity scheme MT_PROTECTED needs the master token of an earlier session: give --earlier-state FILE")
		}
		return nil
	}
	state, err := bolt.OpenClient(c.Client.EarlierState, c.Client.owner())
	if err != nil {
		return err
	}
	k.earlier = &earlierSession{state: state, msl: &msl.Client{
		Local: k.msl.Local, KeyExchanges: k.msl.KeyExchanges, Custody: k.msl.Custody, State: state,
	}}
	if !hide {
		return nil
	}
	held, err := k.earlier.msl.HeldTokens(ctx, "")
	if err != nil {
		return err
	}
	if held.MasterToken == nil {
		return c.noEarlierToken(k)
	}
	k.msl.Local = &hiddenEntity{entityauth.MTProtectedEntity{Hidden: k.msl.Local, Token: held.MasterToken, Keys: held.Keys}}
	return nil
}

// A hiddenEntity holds the keys that hide it.
type hiddenEntity struct{ entityauth.MTProtectedEntity }

// userTokens proves a user by the tokens of the earlier session.
func (e *earlierSession) userTokens(ctx context.Context, user string) (*msl.UserAuthData, error) {
	held, err := e.msl.HeldTokens(ctx, user)
	if err != nil {
		return nil, err
	}
	defer held.Keys.Release()
	if held.MasterToken == nil || held.UserIDToken == nil {
		return nil, fmt.Errorf("the earlier state has no user ID token of %s", printable(user))
	}
	return userauth.UserIDTokenData(held.MasterToken.Bytes(), held.UserIDToken.Bytes()), nil
}

// Close closes the keys before the store that they are in.
func (k *client) Close() error {
	var errs []error
	if k.web != nil {
		k.web.CloseIdleConnections() // with the word that nobody cut them off
	}
	if k.msl != nil {
		errs = append(errs, k.msl.Close(), closeExchanges(k.msl.KeyExchanges))
		if hidden, ok := k.msl.Local.(*hiddenEntity); ok {
			hidden.Keys.Release()
		}
	}
	if k.earlier != nil {
		errs = append(errs, k.earlier.msl.Close(), k.earlier.state.Close())
	}
	if k.peer != nil {
		errs = append(errs, k.peer.Close())
	}
	if k.own != nil {
		k.own.Release()
	}
	if k.reveals != nil {
		errs = append(errs, k.reveals.Close())
	}
	if k.state != nil {
		errs = append(errs, k.state.Close())
	}
	switch {
	case k.machine != nil:
		errs = append(errs, k.machine.Close())
	case k.store != nil:
		errs = append(errs, k.store.Close())
	}
	return errors.Join(errs...)
}
