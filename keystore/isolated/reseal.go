package isolated

import "github.com/msl-hsm/msl-hsm/keystore"

var _ keystore.Resealer = (*Store)(nil)

// Reseal seals a sealed key again, in the child.
func (s *Store) Reseal(blob, context []byte) (again []byte, err error) {
	err = s.ask(opReseal, func(m message) message { return m.bytes(blob).bytes(context) }, func(f *fields) error {
		again = append([]byte{}, f.bytes()...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return again, nil
}

func reseal(s *server, f *fields, m message) (message, error) {
	blob, context := f.bytes(), f.bytes()
	store, err := storeFor[keystore.Resealer](s, f)
	if err != nil {
		return nil, err
	}
	again, err := store.Reseal(blob, context)
	return m.bytes(again), err
}
