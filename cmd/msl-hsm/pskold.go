package main

import (
	"log/slog"

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
			"give each new keys: msl-hsm entity remove IDENTITY, then msl-hsm entity add IDENTITY --generate-psk FILE, with --scheme PSK_PROFILE if it had that; msl-hsm entity list marks them",
			"entities", count, "first", first)
	}
	return nil
}
