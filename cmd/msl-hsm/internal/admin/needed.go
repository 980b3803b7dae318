package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/split"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Needs knows for what servers need the versions of their keys.
type Needs struct {
	Prefix   string
	keep     time.Duration // how long a master token may be used or renewed
	clock    state.Clock   // of the servers
	rotation state.Rotation
	keys     []keystore.Info
	newest   map[string]keystore.Info
	entities []state.EntityRecord
}

// FindNeeds reads what the servers of a state need.
func FindNeeds(ctx context.Context, s Rotations, store keystore.Admin, prefix string, keep time.Duration) (*Needs, error) {
	n := &Needs{Prefix: prefix, keep: keep}
	var err error
	if n.clock, err = s.Clock(ctx, keep); err != nil {
		return nil, err
	}
	if n.keys, err = store.List(); err != nil {
		return nil, err
	}
	n.newest = keys.NewestOf(n.keys)
	if n.rotation, err = s.Rotation(ctx); err != nil {
		return nil, err
	}
	n.entities, err = s.Entities()
	return n, err
}

// together are the labels whose versions belong to those of a label; none if the label is
// not that of a rotating server key.
func (n *Needs) together(label string) []string { return together(n.Prefix, label) }

func together(prefix, label string) []string {
	for _, group := range keys.Together(prefix) {
		if slices.Contains(group, label) {
			return group
		}
	}
	return nil
}

// Rotates reports whether a key is a server's and rotates.
func Rotates(prefix, label string) bool { return together(prefix, label) != nil }

// inUse is the version with which servers make tokens, or seal: the newest version that
// all keys of a group have.
func (n *Needs) inUse(group []string) uint32 {
	least := n.newest[group[0]].Version
	for _, label := range group {
		least = min(least, n.newest[label].Version)
		if n.rotation.Pending() {
			least = min(least, n.rotation.Former[label])
		}
	}
	return least
}

// Why says for what servers need a version of a key, or "" if they do not.
func (n *Needs) Why(label string, version uint32) string {
	group := n.together(label)
	if group == nil {
		return ""
	}
	used := n.inUse(group)
	switch {
	case version == used:
		return "servers use it for what they make"
	case version > used && n.rotation.Pending():
		return "a rotation to it is under way: end it with msl-hsm key rotate"
	case version > used:
		return "" // its partner is missing, so nobody uses it
	}
	if sealed := n.sealedWith(label, version); len(sealed) > 0 {
		hint := "see msl-hsm key rewrap"
		if n.moves(sealed) {
			hint = "msl-hsm key rewrap seals them again"
		}
		return fmt.Sprintf("the pre-shared keys of %s are sealed with it (%s)", Some(sealed), hint)
	}
	return n.tokens(label, version)
}

// tokens says whether tokens made with a version may exist.
func (n *Needs) tokens(label string, version uint32) string {
	var since time.Time
	for newer, at := range n.rotation.Replaced[label] {
		if newer > version && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	if since.IsZero() {
		return "it is not known when servers stopped using it: msl-hsm key rotate records that"
	}
	switch left := since.Sub(n.clock.Ended); {
	case left <= 0:
		return ""
	case since.Before(n.clock.Now.Add(-n.keep - clockSlack)):
		return fmt.Sprintf("by the clock here all tokens that it made have ended, but that is certain only once servers have run for another %v: check this clock", left.Round(time.Minute))
	default:
		return fmt.Sprintf("tokens that it made may be used until %s", n.clock.Now.Add(left).UTC().Format(time.DateTime+" MST"))
	}
}

// sealedWith returns the entities whose keys are sealed with a version of a sealing key.
func (n *Needs) sealedWith(label string, version uint32) (names []string) {
	for _, e := range n.entities {
		if e.PSK == nil {
			continue
		}
		blobs := sealedParts(e.PSK)
		blobs[keystore.RoleSealMAC] = [][]byte{e.PSK.Encryption, e.PSK.MAC, e.PSK.Wrapping}
		for role, all := range blobs {
			if role.Label(n.Prefix) == label && slices.ContainsFunc(all, func(b []byte) bool { return versionOf(b) == version }) {
				names = append(names, e.Identity)
			}
		}
	}
	return names
}

// A Left is an entity whose pre-shared keys are still sealed by an older version.
type Left struct {
	Identity string `json:"identity"`
	Sealing  uint32 `json:"sealing_version"` // the oldest that seals some of its keys
	Again    bool   `json:"register_again"`  // its keys never leave the key store: it needs new ones
}

// A sealing says what can be done with the sealed keys of an entity.
type sealing int

const (
	sealedNow     sealing = iota // sealed by the version in use, or no keys
	sealedBefore                 // sealed by an older one, and can be sealed again
	sealedForGood                // sealed by an older one, and must stay so
)

// left returns which older version seals keys of an entity, if any, and whether they must
// stay so. Anything that is not a sealed key must.
func (n *Needs) left(e state.EntityRecord) (l Left, now sealing) {
	l.Identity = e.Identity
	if e.PSK == nil {
		return l, sealedNow
	}
	used := n.inUse(n.together(keystore.RoleSealMAC.Label(n.Prefix)))
	for role, blobs := range sealedParts(e.PSK) {
		for _, b := range blobs {
			version := versionOf(b)
			apart := split.Sealed(b) != (n.info(role, used).Stored != "") // under another keystore.session-keys
			if version == used && !apart {
				continue
			}
			if now == sealedNow || version < l.Sealing {
				l.Sealing = version
			}
			now = max(now, sealedBefore)
			if apart || !n.info(role, version).Reseals {
				l.Again, now = true, sealedForGood
			}
			if !n.info(role, used).Trusted {
				now = sealedForGood
			}
		}
	}
	return l, now
}

// moves reports whether Rewrap can seal the keys of all these entities again.
func (n *Needs) moves(identities []string) bool {
	these := map[string]bool{}
	for _, name := range identities {
		these[name] = true
	}
	return !slices.ContainsFunc(n.entities, func(e state.EntityRecord) bool {
		_, now := n.left(e)
		return now == sealedForGood && these[e.Identity]
	})
}

// sealedParts are the sealed keys of a key set, by what seals them.
func sealedParts(p *msl.SealedPSK) map[keystore.Role][][]byte {
	return map[keystore.Role][][]byte{
		keystore.RoleSealSession:  {p.Encryption, p.MAC},
		keystore.RoleSealWrapping: {p.Wrapping},
	}
}

// info is the evidence of a version of a key of a role.
func (n *Needs) info(role keystore.Role, version uint32) keystore.Info {
	label := role.Label(n.Prefix)
	for _, k := range n.keys {
		if k.Label == label && k.Version == version {
			return k
		}
	}
	return keystore.Info{}
}

// versionOf is the version of the sealing key of a blob, or 0.
func versionOf(blob []byte) uint32 {
	s, err := keystore.ParseSealed(blob)
	if err != nil {
		return 0
	}
	return s.KEKVersion
}

// Some names the first of many.
func Some(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
}

// Consequence says what is lost with a needed version.
func (n *Needs) Consequence(label string, version uint32) string {
	group := n.together(label)
	if len(group) == 0 {
		return ""
	}
	if version >= n.inUse(group) {
		return "servers cannot answer without it, or go back to an older version"
	}
	if sealed := n.sealedWith(label, version); len(sealed) > 0 {
		return fmt.Sprintf("%s must be registered again with new keys, and their devices given these", Some(sealed))
	}
	return "devices whose tokens it made begin new sessions, their users log in again, and service tokens that it made are lost"
}

var errUnderWay = errors.New("a rotation is under way: end it with msl-hsm key rotate first")

// Retire destroys older versions that nothing needs. Before that, servers stop using them
// to open anything. Needed ones are reported; with force they are also destroyed.
func (r *Rotator) Retire(ctx context.Context, force bool) (err error) {
	defer func() { err = interrupted(ctx, err) }()
	store := r.Store
	n, err := FindNeeds(ctx, r.State, store, r.Prefix, r.Keep)
	if err != nil {
		return err
	}
	next := n.rotation
	if next.Pending() || next.Step == state.StepUsed {
		return errUnderWay
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	next.Step, next.Least = state.StepDone, map[string]uint32{}
	for _, group := range keys.Together(r.Prefix) {
		for _, label := range group {
			next.Least[label] = r.least(n, all, label, n.inUse(group), force)
		}
	}
	old := slices.DeleteFunc(all, func(k keystore.Info) bool { return k.Version >= next.Least[k.Label] })
	if len(old) == 0 {
		r.Tell("no version can be retired")
		return nil
	}
	if err := r.set(ctx, &next); err != nil {
		return err
	}
	if err := r.wait(ctx, next, "open nothing with older versions"); err != nil {
		return err
	}
	for _, k := range old {
		if err := store.Destroy(k.Label, k.Version); err != nil {
			return err
		}
		r.Tell("destroyed %s version %d", k.Label, k.Version)
	}
	return nil
}

// least is the oldest version of a key that stays.
func (r *Rotator) least(n *Needs, all []keystore.Info, label string, used uint32, force bool) uint32 {
	least := used
	for _, k := range all {
		if k.Label != label || k.Version >= used {
			continue
		}
		why := n.Why(label, k.Version)
		switch {
		case why == "":
		case force:
			r.Tell("%s version %d is destroyed although %s: %s", label, k.Version, why, n.Consequence(label, k.Version))
		default:
			r.Tell("kept %s version %d: %s", label, k.Version, why)
			least = min(least, k.Version)
		}
	}
	return least
}
