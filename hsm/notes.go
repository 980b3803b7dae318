package hsm

import "github.com/msl-hsm/msl-hsm/keystore"

// The notes of List about keys that were made by older versions.
const (
	noteTemplate = "older-template: anyone who has the PIN can make keys that it unwraps token objects or public, or derive keys from them; make a new version"
	noteUntold   = "untold-template: the token does not report what it requires of keys that this one unwraps"
)

// notes reports whether a key that unwraps lacks what new keys demand, see pinned.
// Such a key is accepted all the same, so that existing deployments start.
func (i *inspector) notes(session uint, e evidence) ([]string, error) {
	k, err := kindOf(e.Algorithm)
	if err != nil || e.Algorithm == keystore.AESReveal128 || len(k.pinned) == 0 {
		return nil, nil
	}
	declared, err := i.declared(session, e.handle)
	switch {
	case err != nil:
		return nil, err
	case len(declared) == 0:
		return []string{noteUntold}, nil
	}
	for _, f := range k.pinned {
		if value, present := declared[f.attribute]; !present || (value != 0) != f.value {
			return []string{noteTemplate}, nil
		}
	}
	return nil, nil
}
