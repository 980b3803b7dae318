package hsm

import (
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// noteStranger is the note of List about a version whose label other software uses, too.
const noteStranger = "stranger: other software made a key with the same label, which is not used; remove it with that software, or give it another label"

// withoutStrangers leaves out of the keys with one label what cannot be a version of the key:
// what other software made, and either says nothing of a version where the first one is there,
// or is for something else. A key that other software made before the first one was made here
// is its version 1.
func (i *inspector) withoutStrangers(session uint, all []evidence) ([]evidence, error) {
	first := slices.IndexFunc(all, func(e evidence) bool { return e.own })
	if first < 0 || !slices.ContainsFunc(all, func(e evidence) bool { return !e.own }) {
		return all, nil
	}
	purpose, err := i.algorithmOf(session, all[first])
	if err != nil {
		return nil, err
	}
	taken := slices.ContainsFunc(all, func(e evidence) bool { return e.own && e.Version == 1 })
	var versions []evidence
	for _, e := range all {
		strange, err := i.isStranger(session, e, taken, purpose)
		if err != nil {
			return nil, err
		}
		if !strange {
			versions = append(versions, e)
		}
	}
	return versions, nil
}

func (i *inspector) isStranger(session uint, e evidence, taken bool, purpose keystore.Algorithm) (bool, error) {
	if e.own || taken {
		return !e.own, nil
	}
	a, err := i.algorithmOf(session, e)
	return a != purpose, err
}

// versionsOf are the keys of a token, by label, without strangers, each of which is noted at
// the key whose label it has.
func (i *inspector) versionsOf(session uint, all []evidence) (versions []evidence, err error) {
	slices.SortStableFunc(all, func(a, b evidence) int { return strings.Compare(a.Label, b.Label) })
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(e evidence) bool { return e.Label != all[0].Label })
		if n < 0 {
			n = len(all)
		}
		known, err := i.withoutStrangers(session, all[:n])
		if err != nil {
			return nil, err
		}
		if len(known) < n {
			known[0].Notes = append(known[0].Notes, noteStranger)
		}
		versions, all = append(versions, known...), all[n:]
	}
	return versions, nil
}
