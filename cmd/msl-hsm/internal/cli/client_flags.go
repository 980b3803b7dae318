package cli

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

// clientFlags returns the flags that override the client's configuration.
func clientFlags(o *config.Client) []flagGroup {
	who, server, keys, user := flagGroup{title: "Sender"}, flagGroup{title: "Trust"}, flagGroup{title: "Session"}, flagGroup{title: "For a user"}
	s := who.set().StringVar
	s(&o.EntityScheme, "entity-scheme", "", "entity `SCHEME` to use (default: inferred from the other flags)")
	s(&o.Identity, "identity", "", "identity `NAME` of this client (default that of the PSK file)")
	s(&o.PSK, "psk-file", "", "pre-shared keys of this client, in a `FILE`")
	s(&o.PSKKeys, "psk-keys", "", "pre-shared keys of this client, in the key store under labels that begin with `NAME`")
	s(&o.Profile, "profile", "", "`NAME` of the profile of the pre-shared keys")
	s(&o.Key, "key", "", "label `NAME` of this client's RSA or EC key in the key store")
	s(&o.KeyID, "key-id", "", "`ID` of this client's key (default derived from the key)")
	s(&o.Certificate, "certificate", "", "client certificate, the first one in this PEM `FILE`")
	s(&o.Suffix, "suffix", "", "`NAME` appended to the identity")
	s = server.set().StringVar
	s(&o.Recipient, "recipient", "", "identity `NAME` of the server; with a certificate, its subject")
	s(&o.ServerKey, "server-key", "", "RSA or EC public key of the server, in this PEM `FILE`")
	s(&o.ServerKeyID, "server-key-id", "", "`ID` of the server's key (default derived from the key)")
	s(&o.ServerRoots, "server-roots", "", "root certificates trusted to vouch for the server, in this PEM `FILE`")
	s(&o.ServerIntermediates, "server-intermediates", "", "intermediate certificates between the roots and the server's, in this PEM `FILE`")
	s(&o.ServerPSK, "server-psk", "", "pre-shared keys of the server, in this `FILE`")
	s = keys.set().StringVar
	s(&o.State, "state", "", "`FILE` that keeps this client's tokens")
	s(&o.AntiRollback, "anti-rollback", "", "bind the state to a counter in the TPM, at NV `INDEX`, so that old copies of it do no harm")
	keys.c.Flags().Lookup("anti-rollback").NoOptDefVal = "true"
	keys.set().StringArrayVar((*[]string)(&o.KeyExchanges), "key-exchange", nil, "key exchange `NAME` to offer (repeatable, best first)")
	s(&o.DHGroup, "dh-group", "", "parameter group `NAME` of DIFFIE_HELLMAN")
	s(&o.Custody, "custody", "", "`MODE` that limits where session keys may exist: sealed, imported or shared")
	s(&o.EarlierState, "earlier-state", "", "`FILE` of an earlier session of this client, for MT_PROTECTED and USER_ID_TOKEN")
	s = user.set().StringVar
	s(&o.User, "user", "", "send for the user with this `EMAIL` address")
	s(&o.UserScheme, "user-scheme", "", "`SCHEME` by which the user logs in: EMAIL_PASSWORD, or USER_ID_TOKEN from --earlier-state")
	s(&o.Password, "password-source", "", "`SOURCE` of the user's password")
	user.set().StringArrayVar(&o.Languages, "language", nil, "language `TAG` for the server's error messages to the user (repeatable, best first)")
	return []flagGroup{who, server, keys, user}
}

func overrideClient(c *config.Client, o config.Client) {
	for _, f := range []struct {
		value *string
		flag  string
	}{
		{&c.EntityScheme, o.EntityScheme}, {&c.Identity, o.Identity}, {&c.Suffix, o.Suffix},
		{&c.PSK, o.PSK}, {&c.PSKKeys, o.PSKKeys}, {&c.Profile, o.Profile},
		{&c.Key, o.Key}, {&c.KeyID, o.KeyID}, {&c.Certificate, o.Certificate}, {&c.EarlierState, o.EarlierState},
		{&c.Recipient, o.Recipient}, {&c.ServerKey, o.ServerKey}, {&c.ServerKeyID, o.ServerKeyID},
		{&c.ServerRoots, o.ServerRoots}, {&c.ServerIntermediates, o.ServerIntermediates}, {&c.ServerPSK, o.ServerPSK},
		{&c.DHGroup, o.DHGroup}, {&c.Custody, o.Custody}, {&c.State, o.State}, {&c.AntiRollback, o.AntiRollback},
		{&c.User, o.User}, {&c.UserScheme, o.UserScheme}, {&c.Password, o.Password},
	} {
		config.Override(f.value, f.flag)
	}
	if o.KeyExchanges != nil {
		c.KeyExchanges = o.KeyExchanges
	}
	if o.Languages != nil {
		c.Languages = o.Languages
	}
}
