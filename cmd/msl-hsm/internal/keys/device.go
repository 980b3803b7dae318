package keys

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Reread finds the keys that other programs made or destroyed, and reads the PIN again
// if it is in a file.
func Reread(c *config.Keystore, s Store) error {
	if err := Refresh(s); err != nil {
		return err
	}
	return rereadPIN(c, s)
}

// Refresh has the keys looked for again that other programs may have made or destroyed.
func Refresh(s Store) error {
	if changing, ok := s.(keystore.Changing); ok {
		return changing.Refresh()
	}
	return nil
}

// DeviceStats are numbers about a PKCS #11 token at one moment.
type DeviceStats struct {
	Open, InUse int    // sessions
	Objects     int    // that live in them
	Epoch       uint64 // how often the sessions were opened anew
}
