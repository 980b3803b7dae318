package keys

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Provision is a key that a role needs.
type Provision struct {
	Label     string
	Algorithm keystore.Algorithm
	Purpose   string
	rotates   bool     // a new version may be made at any time: older ones stay in use
	signs     bool     // any other signing key will do
	together  []string // labels of the keys, including this one, whose versions belong together
}

// KeySet returns all keys that a server or a device needs, or that of an audit log.
func KeySet(whose, prefix string) (set []Provision, err error) {
	var roles []keystore.Role
	switch whose {
	case "server":
		roles = keystore.ServerRoles()
	case "device":
		roles = keystore.DeviceRoles()
	case "audit":
		roles = []keystore.Role{keystore.RoleAudit}
	default:
		return nil, exit.Usagef("unknown key set %q: want server, device or audit", whose)
	}
	for _, r := range roles {
		p := Provision{Label: r.Label(prefix), Algorithm: r.Algorithm(), Purpose: purposeOf(r), rotates: r != keystore.RoleIdentity, signs: r == keystore.RoleAudit}
		p.together = []string{p.Label}
		for _, group := range Together(prefix) {
			if slices.Contains(group, p.Label) {
				p.together = group
			}
		}
		set = append(set, p)
	}
	return set, nil
}

func purposeOf(r keystore.Role) string {
	return map[keystore.Role]string{
		keystore.RoleIdentity:          "proves the identity",
		keystore.RoleIssuerEncryption:  "encrypts tokens",
		keystore.RoleIssuerMAC:         "authenticates tokens",
		keystore.RoleServiceEncryption: "encrypts service tokens",
		keystore.RoleServiceMAC:        "authenticates service tokens",
		keystore.RoleSealSession:       "seals session keys",
		keystore.RoleSealWrapping:      "seals pre-shared wrapping keys",
		keystore.RoleSealMAC:           "binds what is sealed to its place",
		keystore.RoleAudit:             "signs the audit log",
	}[r]
}

// Labels returns the labels of keys with these roles.
func Labels(prefix string, roles ...keystore.Role) (labels []string) {
	for _, r := range roles {
		labels = append(labels, r.Label(prefix))
	}
	return labels
}

// Together returns the labels of the server keys that rotate, in groups whose versions
// belong together.
func Together(prefix string) [][]string {
	return [][]string{
		Labels(prefix, keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC),
		Labels(prefix, keystore.RoleServiceEncryption, keystore.RoleServiceMAC),
		Labels(prefix, keystore.SealingRoles()...),
	}
}

// Uses reports whether a server with a configuration uses the key with a label.
func Uses(c *config.Config, label string) bool {
	s := &c.Server
	used := []string{s.Key, s.Upstream.TLS.Key, s.Enrollment.CAKey}
	for _, certificate := range s.TLS.Certificates {
		used = append(used, certificate.Key)
	}
	used = slices.AppendSeq(used, maps.Values(s.ModelGroups))
	return strings.HasPrefix(label, c.Keystore.Prefix+"-") || s.PSKKeys != "" && strings.HasPrefix(label, s.PSKKeys+"-") || slices.Contains(used, label)
}

// Newest returns the newest version of each provisioned key.
func Newest(store keystore.Admin) (map[string]keystore.Info, error) {
	all, err := store.List()
	if err != nil {
		return nil, err
	}
	return NewestOf(all), nil
}

// NewestOf returns the newest version of each of the keys.
func NewestOf(all []keystore.Info) map[string]keystore.Info {
	found := map[string]keystore.Info{}
	for _, k := range all {
		if k.Version > found[k.Label].Version || found[k.Label].Label == "" {
			found[k.Label] = k
		}
	}
	return found
}

// Complete makes the missing keys of a set and, with rotate, the next version of those
// that rotate. Keys whose versions belong together are brought up to the same version: a
// lost key starts with version 1 again.
func Complete(store keystore.Admin, set []Provision, rotate bool, tell func(what string, p Provision, version uint32)) error {
	have, err := Newest(store)
	if err != nil {
		return err
	}
	for _, p := range set {
		old, there := have[p.Label]
		if there && p.signs && SignsMSL(old.Algorithm) {
			p.Algorithm = old.Algorithm
		}
		if there && !old.Algorithm.Valid() && len(old.Untold) > 0 {
			return fmt.Errorf("key %q: its purpose is not known, since the key store does not report %s as it should: %w; do not destroy it for that: ask the vendor", p.Label, strings.Join(old.Untold, ", "), keystore.ErrUnavailable)
		}
		if there && old.Algorithm != p.Algorithm {
			return fmt.Errorf("key %q is for %v and not for %v: %w; choose another keystore.prefix, or destroy it if nothing needs it", p.Label, old.Algorithm, p.Algorithm, keystore.ErrExists)
		}
		if there && !(rotate && p.rotates) {
			tell("kept", p, old.Version)
			continue
		}
		number, err := p.create(store, old.Version, p.next(have, rotate))
		if err != nil {
			return fmt.Errorf("create key %q: %w", p.Label, err)
		}
		tell("created", p, number)
	}
	return nil
}

// next is the version that a key will get.
func (p Provision) next(have map[string]keystore.Info, rotate bool) uint32 {
	newest := uint32(0)
	for _, label := range p.together {
		newest = max(newest, have[label].Version)
	}
	if rotate {
		newest++
	}
	return newest
}

// create makes the version of a key after the newest that was seen, and more until the given
// version exists.
func (p Provision) create(store keystore.Admin, seen, until uint32) (uint32, error) {
	for {
		v, err := store.Create(p.Label, p.Algorithm)
		if err == nil && v.Number > seen+1 {
			err = p.alone(store, seen, v.Number)
		}
		if err != nil || v.Number >= until {
			return v.Number, err
		}
		seen = v.Number
	}
}

// alone destroys the version just made if another command made one meanwhile: two identities,
// say, would be one too many.
func (p Provision) alone(store keystore.Admin, seen, own uint32) error {
	all, err := store.List()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(k keystore.Info) bool { return k.Label == p.Label && seen < k.Version && k.Version < own }) {
		return nil
	}
	return errors.Join(errors.New("another command makes it at this moment: let it end, and run this again"), store.Destroy(p.Label, own))
}

// MakeKey is the next step if a key with a label is missing.
func MakeKey(label, algorithm string) string {
	return "make it with " + exit.Command("key create", label, "--algorithm "+algorithm)
}

// ImportKeys is the next step if a set of keys whose labels begin with a prefix is missing.
func ImportKeys(prefix, set string) string {
	return "import it with " + exit.Command("key import", prefix, "--set "+set+" --file FILE")
}

// MakeServerKeys is the next step if keys of a server are missing.
const MakeServerKeys = "run msl-hsm key create --set server"
