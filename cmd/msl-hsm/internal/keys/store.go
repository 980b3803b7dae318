package keys

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/keystore/split"
)

// A Store is a key store with everything that setup commands need.
type Store interface {
	keystore.Store
	keystore.Importer
	keystore.Admin
	Live() (objects, sessions int)
}

// An Importing store accepts session keys that this process has seen.
type Importing interface {
	keystore.Store
	keystore.Importer
}

// DeviceStats are figures about a PKCS #11 token at one moment.
type DeviceStats struct {
	Token       string // its name, if there are several
	Open, InUse int    // sessions
	Objects     int    // that live in them
	Epoch       uint64 // how often the sessions were reopened
}

// Missing adds the next step to the error of a missing key.
func Missing(err error, next string) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("%w; %s", err, next)
	}
	return err
}

// IsolatedVerb is the hidden verb of a process that holds a key store for another one.
const IsolatedVerb = "isolated-keystore"

// deviceOf is the store of the provisioned keys.
func deviceOf(s keystore.Store) keystore.Store {
	if s, ok := s.(*split.Store); ok {
		return s.Device()
	}
	return s
}

// A TokenState is the state of one of several tokens.
type TokenState struct {
	Token  string
	Usable bool
	Queue  int   // operations under way
	Why    error // why it is not usable; nil if it is
}

// Tokens returns the states of a store's tokens, if it has several.
func Tokens(s Store) (all []TokenState) {
	if s, ok := deviceOf(s).(*balanced.Store); ok {
		for _, c := range s.Conditions() {
			all = append(all, TokenState{c.Name, c.Usable, c.Queue, c.Why})
		}
	}
	return all
}

// OneToken requires a key store in which keys can be made: a key that never leaves its
// token cannot be made on several.
func OneToken(k *config.Keystore) error {
	if len(k.Tokens) == 0 {
		return nil
	}
	return exit.Usagef("keystore.tokens names %d tokens, and a key that never leaves its token cannot be made on several: make it on one with --keystore and the URI of that token, and clone it to the others with the tools of their vendor", len(k.Tokens))
}
