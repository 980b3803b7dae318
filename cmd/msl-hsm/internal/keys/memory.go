package keys

import (
	"errors"
	"log/slog"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
	"github.com/msl-hsm/msl-hsm/keystore/split"
)

// sessionsWhere opens a key store, and keeps its session keys in memory if so configured.
func sessionsWhere(c *config.Config, open func(*config.Config) (Store, error)) (Store, error) {
	if err := c.Keystore.CheckToken(); err != nil {
		return nil, err
	}
	device, err := open(c)
	if err != nil || c.Keystore.SessionKeys != config.SessionsInMemory {
		return device, err
	}
	protectMemory(c.Keystore.Log)
	random, err := Random(c, device)
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return split.Config{SealPrefix: c.Keystore.Prefix, Rand: random}.New(device), nil
}

// protectMemory keeps the session keys, and what ciphers derive from them, in this
// process, as far as the system allows.
func protectMemory(log *slog.Logger) {
	for _, what := range []struct {
		err  error
		warn string
	}{
		{lockedmem.LockAll(), "session keys are in memory that may be written to swap space: allow the process to lock its memory (LimitMEMLOCK=infinity in systemd, ulimit -l unlimited), or use no swap space, or encrypted swap space"},
		{isolated.Hide(), "other processes of this user can read the session keys in this process's memory"},
	} {
		if what.err != nil && log != nil {
			log.Warn(what.warn, "error", what.err)
		}
	}
}
