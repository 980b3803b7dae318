package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// CheckClient refuses settings of a client that need another one which the file does not have.
func (c *Config) CheckClient() error {
	mistakes := broken(slices.Concat(c.schemeRules(), c.stateRules(), c.exchangeRules(), c.Client.userRules()))
	if len(mistakes) == 0 {
		return nil
	}
	return located(c.path, c.data, exit.Usagef("%s", mistakes[0]))
}

// ClientNeeds says what send and agent need in addition to the file, by flags. A file without
// client.url needs flags in any case.
func (c *Config) ClientNeeds() (lines []string) {
	o := &c.Client
	if o.URL == "" {
		return nil
	}
	if needs := broken(c.senderRules()); len(needs) > 0 {
		lines = append(lines, "send and agent also need "+strings.Join(needs, "; and "))
	}
	user := msl.CanonicalName(o.User)
	if user != "" && o.UserScheme == "EMAIL_PASSWORD" && !o.Lasts() && cmp.Or(o.Agent.Users[user], o.Password, "prompt") == "prompt" {
		lines = append(lines, "agent also needs --password-source file:PATH, since it has no terminal to ask for the password of "+exit.Printable(user))
	}
	return lines
}

// A clientRule says what a client's settings lack if it is broken.
type clientRule struct {
	broken bool
	why    string
}

func broken(rules []clientRule) (why []string) {
	for _, r := range rules {
		if r.broken {
			why = append(why, r.why)
		}
	}
	return why
}

// tpm reports whether the keys are in a TPM, otherKeys whether they are elsewhere. A flag may
// name the key store of a file that has none.
func (k *Keystore) tpm() bool       { return strings.HasPrefix(k.URI, "tpm:") }
func (k *Keystore) otherKeys() bool { return !k.None() && !k.tpm() }

// schemeRules are about the schemes that the file names.
func (c *Config) schemeRules() []clientRule {
	o := &c.Client
	scheme := o.EntityScheme
	enrolled := o.NamesNobody() && !c.Keystore.otherKeys()
	return []clientRule{
		{scheme == "X509" && !enrolled && (o.Key == "" || o.Certificate == ""), "client.entity-scheme is X509, which needs client.certificate and client.key: set both"},
		{o.Certificate != "" && o.Key == "", "client.certificate is set, and client.key is not: set it to the label of the certificate's key"},
		{scheme == "PSK_PROFILE" && o.Profile == "", "client.entity-scheme is PSK_PROFILE, which needs client.profile: set it"},
		{scheme == "NONE_SUFFIXED" && o.Suffix == "", "client.entity-scheme is NONE_SUFFIXED, which needs client.suffix: set it"},
		{scheme == "MT_PROTECTED" && o.EarlierState == "", "client.entity-scheme is MT_PROTECTED, which needs the master token of an earlier session: set client.earlier-state"},
		{o.UserScheme == "USER_ID_TOKEN" && o.EarlierState == "", "client.user-scheme is USER_ID_TOKEN, which needs the tokens of an earlier session: set client.earlier-state"},
		{o.ServerIntermediates != "" && o.ServerRoots == "", "client.server-intermediates is set and client.server-roots is not: nobody is trusted"},
		{o.Peer && o.URL != "" && !o.Lasts(), "client.peer is on, and client.url is not that of a connection that lasts: set it to tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST/PATH"},
		{o.Agent.Listen != "" && o.Lasts(), "client.agent.listen is set, and client.url is that of a connection that lasts: an agent needs http://HOST:PORT/ or https://HOST/PATH"},
		{o.Peer && c.Keystore.tpm(), "client.peer is on, and keystore.uri is a TPM, which makes no keys for the tokens that a peer issues: use a PKCS #11 token, or soft:FILE"},
	}
}

// stateRules are about what only a TPM can do.
func (c *Config) stateRules() []clientRule {
	o := &c.Client
	at, _ := o.AntiRollbackIndex() // check has read it
	return []clientRule{
		{at != 0 && o.State == "", "client.anti-rollback is on, and there is no state file to protect: set client.state"},
		{at != 0 && c.Keystore.otherKeys(), "client.anti-rollback is on, and the key store is not a TPM that counts: set keystore.uri to tpm:?state=FILE"},
		{o.Attest.Every != 0 && c.Keystore.otherKeys(), "client.attest.every is set, and the key store is not a TPM: set keystore.uri to tpm:?state=FILE, or leave client.attest out"},
	}
}

// exchangeRules are about the key exchanges that the file names.
func (c *Config) exchangeRules() (all []clientRule) {
	for _, name := range c.Client.KeyExchanges {
		why := ""
		switch {
		case name == TPMImport && c.Keystore.otherKeys():
			why = "it needs a TPM: set keystore.uri to tpm:?state=FILE"
		case c.Client.Custody == "" && name != TPMImport && !c.Keystore.tpm():
			if why = forbidsName(msl.CustodySealed, name); why != "" {
				why += ", and client.custody is sealed unless it is set"
			}
		}
		all = append(all, clientRule{why != "", "client.key-exchanges: " + name + ": " + why})
	}
	return all
}

// userRules are about the users of an agent, which has no terminal to ask at.
func (o *Client) userRules() (all []clientRule) {
	for _, user := range slices.Sorted(maps.Keys(o.Agent.Users)) {
		all = append(all, clientRule{cmp.Or(o.Agent.Users[user], "prompt") == "prompt",
			fmt.Sprintf("client.agent.users has no source of the password of %s that needs no terminal: name one, such as file:PATH", exit.Printable(user))})
	}
	return all
}

// senderRules are about what flags may add: who sends, with which keys, and whom to trust.
func (c *Config) senderRules() []clientRule {
	o := &c.Client
	shared := o.PSK != "" || o.PSKKeys != ""
	at, _ := o.AntiRollbackIndex() // check has read it
	forTPM := c.Keystore.None() && (at != 0 || o.Attest.Every != 0 || slices.Contains(o.KeyExchanges, TPMImport))
	return []clientRule{
		{o.CheckPeers() != nil, "--server-key FILE, since client.server-key is not set"},
		{o.NamesNobody() && !c.Keystore.tpm() && !forTPM, "--psk-file FILE, or --identity NAME with --key NAME, since no setting says who sends"},
		{!shared && slices.Contains([]string{"PSK", "PSK_PROFILE", "MGK"}, o.EntityScheme), "--psk-file FILE, since client.entity-scheme is " + o.EntityScheme},
		{o.Key == "" && (o.EntityScheme == "RSA" || o.EntityScheme == "ECC") && !c.Keystore.tpm(), "--key NAME, since client.entity-scheme is " + o.EntityScheme},
		{o.Identity == "" && o.PSK == "" && o.Certificate == "" && (o.PSKKeys != "" || o.Key != ""), "--identity NAME, since client.identity is not set"},
		{c.Keystore.None() && !forTPM && (o.Key != "" || o.PSKKeys != "" || o.TLS.Key != ""), "--keystore URI, since a setting names a key and keystore.uri is not set"},
		{forTPM, "--keystore tpm:?state=FILE, since a setting is for a TPM"},
		{!shared && slices.ContainsFunc(o.KeyExchanges, needsShared), "--psk-file FILE, since a key exchange of client.key-exchanges needs pre-shared keys"},
		{o.Custody == "" && !c.Keystore.tpm() && c.Keystore.CheckCustody("client.custody", msl.CustodySealed) != nil, "--custody imported, since keystore.session-keys is memory"},
		{o.Failures.URL != "" && o.Failures.Identity == "" && o.Identity == "", "--identity NAME, since neither client.failures.identity nor client.identity is set"},
	}
}

// needsShared reports whether a client needs pre-shared keys for a key exchange.
func needsShared(name string) bool { return name == "SYMMETRIC_WRAPPED" || IsLadder(name) }
