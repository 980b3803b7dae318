package main

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// readSet reads the keys of a set.
func (c *config) readSet(name string, f importFlags) ([]incomingKey, func(), error) {
	role := map[string]string{
		"issuer": c.Keystore.Prefix + "-issuer", "service": c.Keystore.Prefix + "-service", "psk": name, "psk-ladder": name,
	}[f.set]
	if role == "" {
		return nil, nil, usagef("unknown set %q: want issuer, service, psk or psk-ladder", f.set)
	}
	k, err := readKeySet(f.file, f.set == "psk" || f.set == "psk-ladder")
	if err != nil {
		return nil, nil, err
	}
	all := []incomingKey{
		{label: role + "-encryption", algorithm: keystore.AES128CBC, raw: k.Encryption},
		{label: role + "-mac", algorithm: keystore.HMACSHA256, raw: k.MAC},
	}
	wipe := k.wipe
	if f.set == "psk" || f.set == "psk-ladder" {
		all[1].algorithm, all[1].raw = keystore.HMACSHA256Block, keystore.HMACBlock(k.MAC)
		wipe = func() { k.wipe(); clear(all[1].raw) }
	}
	wrapping := func(use string, a keystore.Algorithm) {
		all = append(all, incomingKey{label: role + use, algorithm: a, raw: k.Wrapping})
	}
	switch {
	case f.set == "issuer" && k.Wrapping != nil:
		wrapping("-wrapping", keystore.AESWrap128)
	case f.set == "psk", f.set == "psk-ladder":
		wrapping("-wrapping", keystore.AESUnwrap128)
	}
	if f.set == "psk-ladder" || f.set == "issuer" && k.Wrapping != nil {
		wrapping("-revealing", keystore.AESReveal128)
	}
	return all, wipe, nil
}

// takeBack destroys what was imported of a set that did not come whole.
func takeBack(store keys, incoming []incomingKey, done []keystore.Version) error {
	var errs []error
	for n, v := range done {
		errs = append(errs, store.Destroy(incoming[n].label, v.Number))
	}
	return errors.Join(errs...)
}

// inStep refuses to go on with pairs of keys whose versions went different ways:
// the next ones would not belong together.
func inStep(store keystore.Admin, pairs []incomingKey) error {
	have, err := newest(store)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		a, b := pairs[i].label, pairs[i+1].label
		if have[a].Version != have[b].Version {
			return usagef("the newest version of key %q is %d, and of %q %d: first destroy the versions without a counterpart", a, have[a].Version, b, have[b].Version)
		}
	}
	return nil
}
