package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// makeDeviceKeys is what a device's key store lacks without sealing keys.
const makeDeviceKeys = "run msl-hsm key create --set device"

// forgets says why a state file keeps no session, and what to do about it, or
// nothing. Session keys outlive the process sealed, or where our pre-shared key
// opens the answer again that brought them.
func (c *config) forgets(k *client) (why string, err error) {
	seals := slices.ContainsFunc(k.msl.KeyExchanges, func(x msl.Offerer) bool { return x.Scheme() != "SYMMETRIC_WRAPPED" })
	if !seals || k.machine != nil || c.Keystore.URI == "" && c.Keystore.SoftHSM == "" {
		return "", nil
	}
	for _, role := range []string{"-seal-session", "-seal-mac"} {
		_, err := k.store.Lookup(c.Keystore.Prefix + role)
		if errors.Is(err, keystore.ErrNotFound) {
			return "the key store has no sealing keys for the session keys: " + makeDeviceKeys, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// warnOfState notes where a state file can keep no session.
func (c *config) warnOfState(k *client, tell *story) error {
	why, err := c.forgets(k)
	if err == nil && why != "" {
		tell.note = fmt.Sprintf("%s keeps no session, the next call begins anew: %s", printable(c.Client.State), why)
	}
	return err
}

// remind tells what was noted, once something was done.
func (s *story) remind() {
	if s.note != "" {
		fmt.Fprintln(s.out, s.note)
	}
}

// noEarlierToken says how an earlier session is made that hides our entity.
func (c *config) noEarlierToken(k *client) error {
	why, err := c.forgets(k)
	if err != nil {
		return err
	}
	none := printable(c.Client.EarlierState) + " has no master token that can be used here: "
	again := "make one with send --state, and the same key exchange"
	if why != "" {
		return usagef("%s%s; then %s", none, why, again)
	}
	return usagef("%s%s", none, again)
}
