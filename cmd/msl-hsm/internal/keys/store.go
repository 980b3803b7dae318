package keys

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Store is a key store with everything that setup commands need.
type Store interface {
	keystore.Store
	keystore.Importer
	keystore.Admin
	Live() (objects, sessions int)
}

// An Importing store takes session keys that this process has seen.
type Importing interface {
	keystore.Store
	keystore.Importer
}

// DeviceStats are numbers about a PKCS #11 token at one moment.
type DeviceStats struct {
	Open, InUse int    // sessions
	Objects     int    // that live in them
	Epoch       uint64 // how often the sessions were opened anew
}

// Missing adds the next step to the error of a missing key.
func Missing(err error, next string) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("%w; %s", err, next)
	}
	return err
}

// IsolatedVerb is the hidden verb of a process that holds a key store for another.
const IsolatedVerb = "isolated-keystore"
