package config

import (
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// checkSessionKeys permits session keys in memory only if the other keys are elsewhere and
// the custody allows it.
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
		return exit.Usagef("keystore.trusted-wrapping is on, but with keystore.session-keys: memory no key wraps another: leave one of them out; key rewrap works without it")
	case c.Client.Custody == msl.CustodySealed.String():
		return k.CheckCustody("client.custody", msl.CustodySealed)
	case !c.Server.State.IsZero() && c.Server.Custody == msl.CustodySealed.String():
		return k.CheckCustody("server.custody", msl.CustodySealed)
	}
	return nil
}

// elsewhere reports whether the keys are not in a PKCS #11 token.
func (k *Keystore) elsewhere() bool {
	scheme, _, _ := strings.Cut(strings.ToLower(k.URI), ":")
	return scheme == "soft" || scheme == "tpm"
}

// UseSoftHSM makes the tokens in a directory the key store, unless dir is empty. A URI of other
// keys gives way, but not one that a flag named, too.
func (k *Keystore) UseSoftHSM(dir, named string) error {
	if dir == "" {
		return nil
	}
	k.SoftHSM = dir
	if !k.elsewhere() {
		return nil
	}
	if named != "" {
		return exit.Usagef("--softhsm names PKCS #11 tokens, and --keystore %s: give one of them", named)
	}
	k.URI = ""
	return nil
}

// CheckIsolate requires a PKCS #11 token if its module is to run in a process of its own, even
// if a flag names the key store.
func (k *Keystore) CheckIsolate() error {
	if k.Isolate && k.elsewhere() {
		return exit.Usagef("keystore.isolate is true, but is for PKCS #11 modules only: set it to false for the key store %s", k.URI)
	}
	return nil
}

// CheckToken requires a PKCS #11 token if session keys are in memory, even if a flag names
// the key store.
func (k *Keystore) CheckToken() error {
	if k.SessionKeys == SessionsInMemory && k.elsewhere() {
		return exit.Usagef("keystore.session-keys is memory, but is for PKCS #11 tokens: leave it out for the key store %s", k.URI)
	}
	return nil
}

// ServerCustody returns the custody of a server, which must match where session keys are.
func (c *Config) ServerCustody() (msl.Custody, error) {
	custody, err := ParseCustody("server.custody", c.Server.Custody)
	if err == nil {
		err = c.Keystore.CheckCustody("server.custody", custody)
	}
	return custody, err
}

// CheckCustody requires the custody of a server or a client to match where session keys are.
func (k *Keystore) CheckCustody(setting string, custody msl.Custody) error {
	if k.SessionKeys != SessionsInMemory || custody != msl.CustodySealed {
		return nil
	}
	return exit.Usagef("keystore.session-keys is memory, and %s is sealed: set %s to imported, since session keys are in the memory of this process", setting, setting)
}
