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

// keySet is all that a server or a device needs.
func keySet(whose, prefix string) (set []provision, err error) {
	var roles []keystore.Role
	switch whose {
	case "server":
		roles = keystore.ServerRoles()
	case "device":
		roles = keystore.DeviceRoles()
	default:
		return nil, usagef("unknown key set %q: want server or device", whose)
	}
	for _, r := range roles {
		set = append(set, provision{r.Label(prefix), r.Algorithm(), purposeOf(r), r != keystore.RoleIdentity})
	}
	return set, nil
}

func purposeOf(r keystore.Role) string {
	return map[keystore.Role]string{
		keystore.RoleIdentity:          "proves who we are",
		keystore.RoleIssuerEncryption:  "encrypts tokens",
		keystore.RoleIssuerMAC:         "authenticates tokens",
		keystore.RoleServiceEncryption: "encrypts service tokens",
		keystore.RoleServiceMAC:        "authenticates service tokens",
		keystore.RoleSealSession:       "seals session keys",
		keystore.RoleSealWrapping:      "seals pre-shared wrapping keys",
		keystore.RoleSealMAC:           "binds what is sealed to its place",
	}[r]
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
