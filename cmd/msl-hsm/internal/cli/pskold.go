package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A listedEntity is an entity as entity list and entity show display it.
type listedEntity struct {
	state.EntityRecord
	RegisterAgain bool `json:"registeragain,omitempty"` // see serverside.RegisterAgain
}

// listed leaves out the keys: they are sealed, and useless to a reader.
func listed(e state.EntityRecord) listedEntity {
	l := listedEntity{e, serverside.RegisterAgain(e)}
	l.PSK = nil
	return l
}

// status returns the most important fact about an entity.
func (e listedEntity) status() string {
	if e.RegisterAgain {
		return "registered; register it again"
	}
	return status(e.Revoked, e.Removed)
}

// olderTemplate is the advice for keys with this note from package hsm.
const olderTemplate = ": for a server's sealing keys with msl-hsm key create --set server --rotate, for another key with msl-hsm key create or key import, as it was made"

// noteOldKeys adds advice about old keys, and notes if an older version imported a
// device's pre-shared keys: their MAC key is not a block, so that a derived wrapping
// key can be computed from it. Only PKCS #11 has a function for that.
func noteOldKeys(c *config.Config, all []keystore.Info) []keystore.Info {
	if strings.HasPrefix(c.Keystore.URI, "soft:") || strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return all
	}
	has := func(label string, a keystore.Algorithm) bool {
		return slices.ContainsFunc(all, func(k keystore.Info) bool { return k.Label == label && k.Algorithm == a })
	}
	for n, k := range all {
		for i, note := range k.Notes {
			if strings.HasPrefix(note, "older-template: ") {
				k.Notes[i] += olderTemplate
			}
		}
		name, isMAC := strings.CutSuffix(k.Label, keystore.RolePSKMAC.Label(""))
		if isMAC && k.Algorithm == keystore.HMACSHA256 && has(keystore.RolePSKEncryption.Label(name), keystore.AES128CBC) && has(keystore.RolePSKWrapping.Label(name), keystore.AESUnwrap128) {
			all[n].Notes = append(all[n].Notes, fmt.Sprintf("plain-mac: anyone who has the PIN can compute %[1]s-wrapping if it is derived from the other two keys: msl-hsm key destroy %[1]s-mac --yes, then msl-hsm key import %[1]s --set psk --file FILE, or --set psk-ladder as it was", name))
		}
	}
	return all
}
