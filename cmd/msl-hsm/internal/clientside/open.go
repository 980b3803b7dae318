package clientside

import (
	"context"
	"errors"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// Open builds a client. It prints notes for the user to tell.
func Open(c *config.Config, ctx context.Context, tell *Trace) (*Client, error) {
	purpose := ""
	if c.Client.Peer {
		purpose = "a peer"
	}
	if err := c.Client.CheckAnyURL(purpose); err != nil {
		return nil, err
	}
	if err := c.Client.CheckPeers(); err != nil {
		return nil, err
	}
	if err := c.Client.CheckLanguages(); err != nil {
		return nil, err
	}
	k := &Client{}
	if err := fillClient(c, ctx, k, tell); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func fillClient(c *config.Config, ctx context.Context, k *Client, tell *Trace) error {
	if err := clientKeys(c, k); err != nil {
		return err
	}
	random, err := keys.Random(c, k.store)
	if err != nil {
		return err
	}
	k.random = random
	peers, err := peerSchemes(&c.Client, k)
	if err != nil {
		return err
	}
	entity, err := whoSends(c, k)
	if err != nil {
		return err
	}
	if k.web, err = WebClient(c, k.store); err != nil {
		return err
	}
	var transport msl.Transport = &mslhttp.Transport{URL: c.Client.URL, Client: k.web, MaxAnswer: c.Client.Limits.Answer}
	if c.Client.Lasts() {
		if k.lasting, err = newLasting(c, k.store); err != nil {
			return err
		}
		transport = k.lasting
	}
	k.MSL = &msl.Client{
		Local: entity, EntityAuth: afterRefusal(entity), Peers: peers, Rand: k.random, Headers: tell.headers(),
		Transport:    tell.transport(transport),
		Limits:       messageLimits(c.Client.Limits),
		Capabilities: &msl.Capabilities{Compression: c.Client.Compression, Languages: c.Client.Languages},
	}
	if err := clientExchanges(c, k); err != nil {
		return err
	}
	if err := useEarlier(c, ctx, k); err != nil {
		return err
	}
	if k.MSL.UserAuth, err = clientUserAuth(&c.Client, k.earlier); err != nil {
		return err
	}
	if c.Client.State != "" {
		if err := warnOfState(c, k, tell); err != nil {
			return err
		}
		if k.state, err = bolt.OpenClient(c.Client.State, c.Client.Owner()); err != nil {
			return err
		}
	}
	state, err := anchored(c, ctx, k, tell)
	if err != nil {
		return err
	}
	if k.MSL.State = tell.state(state); c.Client.Peer {
		return usePeer(c, k)
	}
	return nil
}

// whoSends returns the client's own entity: as configured, or as a server enrolled this
// machine.
func whoSends(c *config.Config, k *Client) (msl.LocalEntity, error) {
	if k.device != nil && c.Client.NamesNobody() {
		return machineEntity(c, k.device)
	}
	scheme, err := clientScheme(c, k.store)
	if err != nil {
		return nil, err
	}
	return clientEntity(c, k, scheme)
}

// clientKeys opens the device's key store. Without one the keys are in memory.
func clientKeys(c *config.Config, k *Client) error {
	if c.Keystore.None() {
		for _, label := range []string{c.Client.Key, c.Client.PSKKeys} {
			if label != "" {
				return exit.Usagef("no key store for the key %q: give --keystore URI, or keystore.uri in the configuration", label)
			}
		}
		k.store = soft.New()
		return nil
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		m, err := keys.OpenDevice(c)
		if err == nil {
			k.device, k.store = m, m.Store
		}
		return err
	}
	store, err := keys.Open(c)
	if err == nil {
		k.store = store
	}
	return err
}

// clientExchanges sets the key exchanges that the client offers.
func clientExchanges(c *config.Config, k *Client) error {
	custody, err := clientCustody(c, k.device)
	if err != nil {
		return err
	}
	names := []string(c.Client.KeyExchanges)
	if names == nil {
		names = []string{"ASYMMETRIC_WRAPPED"}
		switch {
		case k.own != nil && k.own.Wrapping != nil:
			names = []string{"SYMMETRIC_WRAPPED"}
		case k.device != nil && (custody == msl.CustodySealed || c.Client.Custody == ""):
			names = []string{config.TPMImport}
		}
	}
	if err := config.CheckNames(names, config.ExchangeNames()); err != nil {
		return exit.Usagef("key exchange: %w", err)
	}
	parts := offering{store: k.store, random: k.random, device: k.device, keys: k.own, reveals: k.reveals}
	if err := c.Keystore.CheckCustody("client.custody", custody); err != nil {
		return err
	}
	if c.Client.DHGroup != "" {
		parts.groups = config.GroupList{c.Client.DHGroup}
	}
	k.MSL.Custody = custody
	k.MSL.KeyExchanges, err = parts.offerers(names, custody)
	return err
}

// clientCustody returns where session keys may exist. By default that is only in the key
// store, except for a TPM without AES, whose encryption keys are outside it.
func clientCustody(c *config.Config, device *keys.Device) (msl.Custody, error) {
	switch {
	case c.Client.Custody != "":
		return config.ParseCustody("client.custody", c.Client.Custody)
	case device != nil && !device.HasAES():
		return msl.CustodyImported, nil
	}
	return msl.CustodySealed, nil
}

// clientUserAuth returns the user's authentication data once: refused data is not tried
// again.
func clientUserAuth(c *config.Client, earlier *earlierSession) (func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error), error) {
	prove := func(ctx context.Context, user string) (*msl.UserAuthData, error) {
		password, err := keys.Secret(keys.OrPrompt(c.Password), "password of "+user)
		if err != nil {
			return nil, err
		}
		defer password.Close()
		return userauth.EmailPasswordData(user, password.Bytes()), nil
	}
	switch {
	case c.UserScheme == "USER_ID_TOKEN" && earlier == nil:
		return nil, exit.Usagef("user scheme USER_ID_TOKEN needs the tokens of an earlier session: give --earlier-state FILE")
	case c.UserScheme == "USER_ID_TOKEN":
		prove = earlier.userTokens
	case c.UserScheme != "EMAIL_PASSWORD":
		return nil, exit.Usagef("unknown user scheme %q: want EMAIL_PASSWORD or USER_ID_TOKEN", c.UserScheme)
	}
	return func(ctx context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
		if reason != 0 {
			return nil, nil
		}
		return prove(ctx, user)
	}, nil
}

// useEarlier opens the earlier session, and hides the client's entity with it if the
// scheme is MT_PROTECTED.
func useEarlier(c *config.Config, ctx context.Context, k *Client) error {
	hide := c.Client.EntityScheme == "MT_PROTECTED"
	if c.Client.EarlierState == "" {
		if hide {
			return exit.Usagef("entity scheme MT_PROTECTED needs the master token of an earlier session: give --earlier-state FILE")
		}
		return nil
	}
	state, err := bolt.OpenClient(c.Client.EarlierState, c.Client.Owner())
	if err != nil {
		return err
	}
	k.earlier = &earlierSession{state: state, msl: &msl.Client{
		Local: k.MSL.Local, KeyExchanges: k.MSL.KeyExchanges, Custody: k.MSL.Custody, State: state, Rand: k.random,
	}}
	if !hide {
		return nil
	}
	held, err := k.earlier.msl.HeldTokens(ctx, "")
	if err != nil {
		return err
	}
	if held.MasterToken == nil {
		return noEarlierToken(c, k)
	}
	k.MSL.Local = &hiddenEntity{entityauth.MTProtectedEntity{Hidden: k.MSL.Local, Token: held.MasterToken, Keys: held.Keys, Rand: k.random}}
	return nil
}
