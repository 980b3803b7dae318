package soft

import (
	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Resealer = (*Store)(nil)

// Reseal seals a sealed key again, with the version that seals now.
func (s *Store) Reseal(blob, context []byte) ([]byte, error) {
	sealed, raw, err := openBlob(s, blob, context)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return sealRaw(s, sealed.Algorithm, raw, context)
}
