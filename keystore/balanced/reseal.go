package balanced

import "github.com/msl-hsm/msl-hsm/keystore"

var _ keystore.Resealer = (*Store)(nil)

// Reseal seals a sealed key again, on one of the tokens.
func (s *Store) Reseal(blob, context []byte) ([]byte, error) {
	return use(s.tokens, s.limit, nil, func(p *place, _ []keystore.Key) ([]byte, error) {
		store, err := as[keystore.Resealer](p)
		if err != nil {
			return nil, err
		}
		return store.Reseal(blob, context)
	})
}
