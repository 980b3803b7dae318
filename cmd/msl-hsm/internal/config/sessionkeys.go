package config

import (
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// checkSessionKeys wants session keys in memory only where that is somewhere else than the
// other keys, and where the custody says so.
func (c *Config) checkSessionKeys() error {
	k := &c.Keystore
	if k.SessionKeys != SessionsInMemory {
		return nil
	}
	if err := k.CheckToken(); err != nil {
		return err
	}
	switch {
	case k.TrustedWrap:
		return exit.Usagef("keystore.trusted-wrapping is on, but with keystore.session-keys: memory no key wraps another: leave one of them out; what is sealed goes to newer keys by key rewrap without it")
	case c.Client.Custody == msl.CustodySealed.String():
		return k.CheckCustody("client.custody", msl.CustodySealed)
	case !c.Server.State.IsZero() && c.Server.Custody == msl.CustodySealed.String():
		return k.CheckCustody("server.custody", msl.CustodySealed)
	}
	return nil
}

// CheckToken wants a PKCS #11 token where session keys are in memory, also in place of the
// configured one.
func (k *Keystore) CheckToken() error {
	scheme, _, _ := strings.Cut(strings.ToLower(k.URI), ":")
	if k.SessionKeys == SessionsInMemory && (scheme == "soft" || scheme == "tpm") {
		return exit.Usagef("keystore.session-keys is memory, but is for PKCS #11 tokens: leave it out for the key store %s", k.URI)
	}
	return nil
}

// ServerCustody is the custody of a server, which has to fit where session keys are.
func (c *Config) ServerCustody() (msl.Custody, error) {
	custody, err := ParseCustody("server.custody", c.Server.Custody)
	if err == nil {
		err = c.Keystore.CheckCustody("server.custody", custody)
	}
	return custody, err
}

// CheckCustody wants a custody of a server or a client that says where session keys are.
func (k *Keystore) CheckCustody(setting string, custody msl.Custody) error {
	if k.SessionKeys != SessionsInMemory || custody != msl.CustodySealed {
		return nil
	}
	return exit.Usagef("keystore.session-keys is memory, and %s is sealed: set %s to imported, since session keys are in the memory of this process", setting, setting)
}
