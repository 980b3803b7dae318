package main

import (
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A provision is a key that a role needs.
type provision struct {
	label     string
	algorithm keystore.Algorithm
	purpose   string
	rotates   bool // older versions stay of use, so that new ones may come any time
}

// keySet is all that a role needs: a server, or a device.
func keySet(role, prefix string) ([]provision, error) {
	sealing := []provision{
		{prefix + "-seal-session", keystore.SealSession256, "seals session keys", true},
		{prefix + "-seal-wrapping", keystore.SealWrapping256, "seals pre-shared wrapping keys", true},
		{prefix + "-seal-mac", keystore.SealMAC256, "binds what is sealed to its place", true},
	}
	identity := provision{prefix + "-identity", keystore.RSASign2048, "proves who we are", false}
	switch role {
	case "server":
		return append([]provision{
			identity,
			{prefix + "-issuer-encryption", keystore.AES128CBC, "encrypts tokens", true},
			{prefix + "-issuer-mac", keystore.HMACSHA256, "authenticates tokens", true},
			{prefix + "-service-encryption", keystore.AES128CBC, "encrypts service tokens", true},
			{prefix + "-service-mac", keystore.HMACSHA256, "authenticates service tokens", true},
		}, sealing...), nil
	case "device":
		return append([]provision{identity}, sealing...), nil
	}
	return nil, usagef("unknown key set %q: want server or device", role)
}

// newest finds the newest version of each provisioned key.
func newest(store keystore.Admin) (map[string]keystore.Info, error) {
	all, err := store.List()
	if err != nil {
		return nil, err
	}
	found := map[string]keystore.Info{}
	for _, k := range all {
		if k.Version > found[k.Label].Version || found[k.Label].Label == "" {
			found[k.Label] = k
		}
	}
	return found, nil
}

// complete makes the keys of a set that are not there, and with rotate the next
// version of those that may have one.
func complete(store keystore.Admin, set []provision, rotate bool, tell func(what string, p provision, version uint32)) error {
	have, err := newest(store)
	if err != nil {
		return err
	}
	for _, p := range set {
		old, there := have[p.label]
		if there && old.Algorithm != p.algorithm {
			return fmt.Errorf("key %q is for %v and not for %v: %w; destroy it, or choose another keystore.prefix", p.label, old.Algorithm, p.algorithm, keystore.ErrExists)
		}
		if there && !(rotate && p.rotates) {
			tell("kept", p, old.Version)
			continue
		}
		v, err := store.Create(p.label, p.algorithm)
		if err != nil {
			return fmt.Errorf("create key %q: %w", p.label, err)
		}
		tell("created", p, v.Number)
	}
	return nil
}
