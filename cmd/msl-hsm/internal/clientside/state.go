package clientside

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// noState is the state of a client without a file: it counts message ids and keeps
// nothing.
type noState struct{ ids atomic.Int64 }

func (*noState) Load(context.Context) (msl.ClientRecord, error) { return msl.ClientRecord{}, nil }

func (*noState) Save(context.Context, msl.ClientRecord) error { return nil }

// NextID uses one counter for all serial numbers: ids need only increase.
func (n *noState) NextID(context.Context, int64) (int64, error) { return n.ids.Add(1), nil }

// makeDeviceKeys is the next step if a device's key store has no sealing keys.
const makeDeviceKeys = "run msl-hsm key create --set device"

// forgets returns why a state file cannot keep a session and what to do about it, or
// "". Session keys outlive the process if they are sealed, or if the client's
// pre-shared key can decrypt again the answer that delivered them.
func forgets(c *config.Config, k *Client) (why string, err error) {
	seals := slices.ContainsFunc(k.MSL.KeyExchanges, func(x msl.Offerer) bool { return x.Scheme() != "SYMMETRIC_WRAPPED" })
	if !seals || k.device != nil || c.Keystore.None() {
		return "", nil
	}
	for _, role := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealMAC} {
		_, err := k.store.Lookup(role.Label(c.Keystore.Prefix))
		if errors.Is(err, keystore.ErrNotFound) {
			return "the key store has no sealing keys for the session keys: " + makeDeviceKeys, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// warnOfState notes if a state file cannot keep a session.
func warnOfState(c *config.Config, k *Client, tell *Trace) error {
	why, err := forgets(c, k)
	if err == nil && why != "" {
		tell.note = fmt.Sprintf("%s keeps no session, the next call begins anew: %s", exit.Printable(c.Client.State), why)
	}
	return err
}

// noEarlierToken explains how to make an earlier session that hides the client's
// entity.
func noEarlierToken(c *config.Config, k *Client) error {
	why, err := forgets(c, k)
	if err != nil {
		return err
	}
	none := exit.Printable(c.Client.EarlierState) + " has no master token that can be used here: "
	again := "make one with send --state, and the same key exchange"
	if why != "" {
		return exit.Usagef("%s%s; then %s", none, why, again)
	}
	return exit.Usagef("%s%s", none, again)
}
