package serverside

import (
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore/split"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// sealedApart says what to do about entities whose pre-shared keys were sealed under
// another keystore.session-keys than the current one, or "" if there are none.
func sealedApart(c *config.Config, all []state.EntityRecord) string {
	count, first := 0, ""
	for _, e := range all {
		if e.PSK == nil || e.Revoked || split.Sealed(e.PSK.MAC) == (c.Keystore.SessionKeys == config.SessionsInMemory) {
			continue
		}
		if count++; count == 1 {
			first = e.Identity
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("keystore.session-keys was changed: the pre-shared keys of %s, such as %q, can no longer be opened; set it back, or give each entity new keys: msl-hsm entity remove IDENTITY, then msl-hsm entity add IDENTITY --generate-psk FILE", exit.Count(count, "entity", "entities"), first)
}
