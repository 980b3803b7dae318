package keys

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/split"
)

// sessionsWhere puts the session keys of a key store into memory, if that is configured.
func sessionsWhere(c *config.Config, device Store, err error) (Store, error) {
	if err != nil || c.Keystore.SessionKeys != config.SessionsInMemory {
		return device, err
	}
	random, err := Random(c, device)
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return split.Config{SealPrefix: c.Keystore.Prefix, Rand: random}.New(device), nil
}

// deviceOf is the store of the provisioned keys.
func deviceOf(s keystore.Store) keystore.Store {
	if s, ok := s.(*split.Store); ok {
		return s.Device()
	}
	return s
}
