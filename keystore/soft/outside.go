package soft

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// These functions are for a store over this one whose sealing and wrapping keys are in a device:
// see package keystore/split.

// Leave calls use with the bytes of a session key that may leave the store, so that it can
// be wrapped elsewhere. They are in locked memory, and wiped when use returns. A key that
// may not leave is [keystore.ErrLocked]; with last this is the last time, also after an
// error. A key pair has no bytes to give.
func Leave(s *Store, k keystore.Key, last bool, use func(raw []byte) error) error {
	own, err := s.own(k)
	if err != nil {
		return err
	}
	out, err := own.leave(last)
	if err != nil {
		return err
	}
	raw := lockedmem.Move(out)
	defer raw.Close()
	return use(raw.Bytes())
}

// ImportLocked is [Store.Import] for a key that must not leave the store anymore, such as
// one that was sealed.
func ImportLocked(s *Store, a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if !a.Secret() || a.Sealing() {
		return nil, fmt.Errorf("soft: import %v: %w", a, errors.ErrUnsupported)
	}
	m, err := secret(a, raw)
	if err != nil {
		return nil, err
	}
	return s.adopt(a, m, true)
}
