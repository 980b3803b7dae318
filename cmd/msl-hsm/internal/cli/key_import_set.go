package cli

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// rolesOf are the keys of a set, in the order of a key file: encryption, MAC, and
// the halves of the wrapping key.
func rolesOf(set string) []keystore.Role {
	psk := []keystore.Role{keystore.RolePSKEncryption, keystore.RolePSKMAC, keystore.RolePSKWrapping}
	return map[string][]keystore.Role{
		"issuer":     {keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC, keystore.RoleIssuerWrapping, keystore.RoleIssuerRevealing},
		"service":    {keystore.RoleServiceEncryption, keystore.RoleServiceMAC},
		"psk":        psk,
		"psk-ladder": append(psk, keystore.RolePSKRevealing),
	}[set]
}

// readSet reads the keys of a set.
func readSet(c *config.Config, name string, f importFlags) ([]incomingKey, func(), error) {
	prefix, roles := c.Keystore.Prefix, rolesOf(f.set)
	if roles == nil {
		return nil, nil, exit.Usagef("unknown set %q: want issuer, service, psk or psk-ladder", f.set)
	}
	psk := f.set == "psk" || f.set == "psk-ladder"
	k, err := keys.ReadKeySet(f.file, psk)
	if err != nil {
		return nil, nil, err
	}
	raw, wipe := [][]byte{k.Encryption, k.MAC, k.Wrapping, k.Wrapping}, k.Wipe
	if psk {
		prefix, raw[1] = name, keystore.HMACBlock(k.MAC)
		wipe = func() { k.Wipe(); clear(raw[1]) }
	}
	if k.Wrapping == nil {
		roles = roles[:2]
	}
	var all []incomingKey
	for i, r := range roles {
		all = append(all, incomingKey{label: r.Label(prefix), algorithm: r.Algorithm(), raw: raw[i]})
	}
	return all, wipe, nil
}

// takeBack destroys what was imported of a set that did not come whole.
func takeBack(store keys.Store, incoming []incomingKey, done []keystore.Version) error {
	var errs []error
	for n, v := range done {
		errs = append(errs, store.Destroy(incoming[n].label, v.Number))
	}
	return errors.Join(errs...)
}

// inStep refuses to go on with pairs of keys whose versions went different ways:
// the next ones would not belong together.
func inStep(store keystore.Admin, pairs []incomingKey) error {
	have, err := keys.Newest(store)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		a, b := pairs[i].label, pairs[i+1].label
		if have[a].Version != have[b].Version {
			return exit.Usagef("the newest version of key %q is %d, and of %q %d: first destroy the versions without a counterpart", a, have[a].Version, b, have[b].Version)
		}
	}
	return nil
}
