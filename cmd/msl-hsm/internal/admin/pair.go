package admin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// pairText is tagged with the versions of the issuer's MAC key to identify them. The
// other data that they authenticate, tokens and the root of a state, never begins like
// this.
const pairText = "msl-hsm state pair\x00"

// pairVersions is how many versions are compared: each costs an operation of the HSM.
const pairVersions = 8

// Pair makes a state that is used with the keys of a store record that, and returns them. If
// it was used with other keys, the error is [ErrOtherKeys]; a warning says that one of the two
// seems to be older than the other.
func (s *State) Pair(c *config.Config, store keystore.Store) (own state.Pair, warning string, err error) {
	used, err := UsedKeys(c, s.Server)
	if err != nil {
		return nil, "", err
	}
	own, warning, err = judge(c, used, store)
	if err == nil && len(own) > 0 {
		err = s.AddPair(context.Background(), own)
	}
	return own, warning, err
}

// Replaced reports whether a version was another key before.
func Replaced(own, before state.Pair) bool {
	_, others := agreeing(own, before)
	return others > 0
}

// belongs checks that the state does not belong to keys other than those of a store.
func (s *State) belongs(c *config.Config, store keystore.Store) error {
	used, err := UsedKeys(c, s.Server)
	if err == nil {
		_, err = ComparePair(c, used, store)
	}
	return err
}

// A Used says with which versions of the issuer's MAC key a state was used, and which
// newest one key rotate made for it, which is expected even if the rotation was
// interrupted.
type Used struct {
	known state.Pair
	made  uint32
}

// UsedKeys reads that.
func UsedKeys(c *config.Config, s *state.Server) (Used, error) {
	known, err := s.Pair(context.Background())
	if err != nil {
		return Used{}, err
	}
	r, err := s.Rotation(context.Background())
	return Used{known, r.Versions[issuerMAC(c)]}, err
}

// expected returns the existing versions without the one made for the state.
func (u Used) expected(own state.Pair) state.Pair {
	if _, noted := u.known[u.made]; noted || len(own) < 2 {
		return own
	}
	own = maps.Clone(own)
	delete(own, u.made)
	return own
}

// ComparePair is State.Pair without recording, for the keys that a state was used with.
func ComparePair(c *config.Config, used Used, store keystore.Store) (warning string, err error) {
	_, warning, err = judge(c, used, store)
	return warning, err
}

func judge(c *config.Config, used Used, store keystore.Store) (own state.Pair, warning string, err error) {
	if own, err = prints(store, issuerMAC(c)); err != nil {
		return nil, "", err
	}
	if warning, err = compare(used.expected(own), used.known, issuerMAC(c)); err != nil {
		err = otherKeys(c, c.Server.State.String(), err)
	}
	return own, warning, err
}

func issuerMAC(c *config.Config) string {
	return keystore.RoleIssuerMAC.Label(c.Keystore.Prefix)
}

// prints returns tags that identify the newest versions of a key. A missing key has none.
func prints(store keystore.Store, label string) (state.Pair, error) {
	ring, err := store.Lookup(label)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	own := state.Pair{}
	for _, v := range ring[:min(len(ring), pairVersions)] {
		mac, err := keystore.As[keystore.MAC](label, v)
		if err != nil {
			return nil, err
		}
		if own[v.Number], err = keystore.ConfirmedSum(mac, []byte(pairText)); err != nil {
			return nil, err
		}
	}
	return own, nil
}

// compare judges the existing keys by those that a state was used with.
func compare(own, known state.Pair, label string) (warning string, err error) {
	if len(known) == 0 {
		return "", nil
	}
	if len(own) == 0 {
		return "", fmt.Errorf("%w: there is no key %s", ErrOtherKeys, label)
	}
	there, was := newestOf(own), newestOf(known)
	same, others := agreeing(own, known)
	switch {
	case same == 0 && others > 0:
		return "", ErrOtherKeys
	case same == 0:
		return fmt.Sprintf("no version of %s with which the state was used exists any more: it is not known whether the state belongs to these keys", label), nil
	case was > there:
		return fmt.Sprintf("the newest version of %s is %d, but the state was used with version %d: the keys are from an older backup, and devices with tokens of the newer version begin new sessions", label, there, was), nil
	case there > was:
		return fmt.Sprintf("version %d of %s was made since the state was last used: if the state is an older copy, stop the server, make a backup of it with msl-hsm state backup, and put that in its place with msl-hsm state restore, which ends the earlier tokens", there, label), nil
	case others > 0:
		return fmt.Sprintf("some versions of %s are not those with which the state was used: after a backup of the keys was restored, they were made again, and devices with tokens of the lost versions begin new sessions", label), nil
	}
	return "", nil
}

func newestOf(p state.Pair) uint32 { return slices.Max(slices.Collect(maps.Keys(p))) }

// agreeing counts the versions that both have, by whether they are the same.
func agreeing(own, known state.Pair) (same, others int) {
	for version, print := range own {
		was, found := known[version]
		switch {
		case found && hmac.Equal(was, print):
			same++
		case found:
			others++
		}
	}
	return same, others
}

// otherKeys says what belongs together, and what to do.
func otherKeys(c *config.Config, where string, err error) error {
	verb := "restore"
	if c.Server.State.Shared() {
		verb = "import"
	}
	lost := "msl-hsm state " + verb + " --new-keys FILE adopts a backup of the state for the keys that are there"
	if path := c.Server.State.Path(); where == path && path != "" {
		lost = "run msl-hsm state sign --state " + Quoted(path)
	}
	return exit.WithCode(exit.OfKind(ErrOtherKeys, "the state %s belongs to other keys than %s has%s: correct server.state or the key store, or put the backup of the keys back; if they are lost for good, %s",
		where, placeOfKeys(&c.Keystore), strings.TrimPrefix(err.Error(), ErrOtherKeys.Error()), lost), exit.Usage)
}

func placeOfKeys(k *config.Keystore) string {
	return cmp.Or(k.URI, k.SoftHSM, strings.Join(k.Tokens, ", "))
}

// fits judges a backup, for which newer versions are to be expected.
func fits(c *config.Config, backup string, own, known state.Pair) (note string, err error) {
	note, err = compare(own, known, issuerMAC(c))
	switch {
	case err != nil:
		return "", otherKeys(c, backup, err)
	case newestOf(own) > newestOf(known):
		return "", nil
	}
	return note, nil
}

// unusable is Unusable, and for a file that belongs to other keys says which ones.
func (r *Keys) unusable(path string, err error) error {
	other := Unusable(path, err)
	if !errors.Is(err, bolt.ErrOtherKey) {
		return other
	}
	known, errKnown := bolt.PairOf(path)
	if errKnown != nil {
		return other
	}
	return explained(r.c, path, r.store, known, "and you know that the file is right, run msl-hsm state sign --state "+Quoted(path), other)
}

// foreign returns the error for an inauthentic state in etcd, which may belong to other
// keys.
func foreign(c *config.Config, store keystore.Store, at etcd.Config, forged error) error {
	known, err := etcd.PairOf(context.Background(), at)
	if err != nil {
		return forged
	}
	return explained(c, c.Server.State.String(), store, known, "choose another prefix, and run msl-hsm state import --new-keys FILE with a backup of the state", forged)
}

// explained says that an inauthentic state belongs to other keys, or that the version
// that authenticates it no longer exists; otherwise it returns forged.
func explained(c *config.Config, where string, store keystore.Store, known state.Pair, lost string, forged error) error {
	own, err := prints(store, issuerMAC(c))
	if err != nil {
		return forged
	}
	why, err := compare(own, known, issuerMAC(c))
	if err != nil {
		return otherKeys(c, where, err)
	}
	if why == "" || !errors.Is(forged, authkv.ErrOtherKey) {
		return forged
	}
	if _, there := own[newestOf(known)]; there {
		return forged
	}
	return exit.OfKind(authkv.ErrOtherKey, "the version of the key that authenticates %s is missing: %s; put that version back or, if it is lost, %s", where, why, lost)
}
