package soft

import (
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Resealer = (*Store)(nil)

// Reseal seals what is sealed once more, with the version that seals now.
func (s *Store) Reseal(blob, context []byte) ([]byte, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	authentic, err := authentic(s, sealed, context)
	if err != nil {
		return nil, err
	}
	role, err := kekOf(sealed.Algorithm)
	if err != nil || !authentic {
		return nil, fmt.Errorf("soft: seal again: %w", keystore.ErrForeign)
	}
	raw, err := openSealed(s, role.Label(s.prefix), sealed)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return sealRaw(s, sealed.Algorithm, raw, context)
}
