package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A listedEntity is an entity as entity list and entity show tell of it.
type listedEntity struct {
	bolt.EntityRecord
	RegisterAgain bool `json:"registeragain,omitempty"` // see registerAgain
}

// listed leaves the keys out: they are sealed, and of no use to a reader.
func listed(e bolt.EntityRecord) listedEntity {
	l := listedEntity{e, registerAgain(e)}
	l.PSK = nil
	return l
}

// status is what is to be known of an entity first.
func (e listedEntity) status() string {
	if e.RegisterAgain {
		return "registered; register it again"
	}
	return status(e.Revoked, e.Removed)
}

// registerAgain reports whether the keys of an entity were sealed by an older
// version, so that the wrapping key, if it is derived from the others, can be
// computed in a PKCS #11 token. Nothing can seal them anew but the bytes of the
// keys, which the server does not have. Who is revoked needs nothing.
func registerAgain(e bolt.EntityRecord) bool {
	if e.PSK == nil || e.Revoked {
		return false
	}
	a, err := e.PSK.MACAlgorithm()
	return err == nil && a == keystore.HMACSHA256
}

// warnOldKeys names the first entities that have to be registered again.
func (s *service) warnOldKeys(log *slog.Logger) error {
	all, err := s.state.Entities()
	if err != nil {
		return err
	}
	count, first := 0, []string{}
	for _, e := range all {
		if !registerAgain(e) {
			continue
		}
		if count++; count <= 3 {
			first = append(first, e.Identity)
		}
	}
	if count > 0 {
		log.Warn("an older version sealed the pre-shared keys of some entities: whoever has the PIN of the key store and the state file may compute their wrapping keys and open recorded key exchanges; "+
			"give each new keys: msl-hsm entity remove IDENTITY, then msl-hsm entity add IDENTITY --generate-psk FILE, with --scheme PSK_PROFILE if it had that, or --tpm-psk if its keys are in a TPM; msl-hsm entity list marks them",
			"entities", count, "first", first)
	}
	return nil
}

// olderTemplate is what to do about keys of that note of package hsm.
const olderTemplate = ": of a server's sealing keys by msl-hsm key create --set server --rotate, of another by msl-hsm key create or key import as it was made"

// noteOldKeys says what to do about old keys, and notes of the pre-shared keys of a device that an older version
// imported them: the MAC key is not a block, so that it gives a derived wrapping
// key away. Only PKCS #11 has a function for that.
func (c *config) noteOldKeys(all []keystore.Info) []keystore.Info {
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
			all[n].Notes = append(all[n].Notes, fmt.Sprintf("plain-mac: whoever has the PIN can compute %[1]s-wrapping if it is derived from the other two keys: msl-hsm key destroy %[1]s-mac --yes, then msl-hsm key import %[1]s --set psk --file FILE, or --set psk-ladder as it was", name))
		}
	}
	return all
}
