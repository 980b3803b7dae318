package state

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestSummaryFinds writes inconsistent records with valid checksums.
func TestSummaryFinds(t *testing.T) {
	for name, change := range map[string]func(tx kv.Tx) error{
		"an entity that could not be registered": func(tx kv.Tx) error {
			return tx.Put(tableEntities, []byte("x"), []byte(`{"identity":"x","scheme":"RSA"}`))
		},
		"an entity of garbage": func(tx kv.Tx) error { return tx.Put(tableEntities, []byte("x"), []byte(`{`)) },
		"registered and removed": func(tx kv.Tx) error {
			return tx.Put(tableUserMarks, []byte("ann"), mark{removed: true}.encode())
		},
		"a mark of garbage":     func(tx kv.Tx) error { return tx.Put(tableEntityMarks, []byte("x"), []byte("x")) },
		"a password of garbage": func(tx kv.Tx) error { return tx.Put(tableUsers, []byte("x"), []byte(`{}`)) },
		"an id of garbage":      func(tx kv.Tx) error { return tx.Put(tableIDs, []byte("x"), []byte("x")) },
	} {
		s := newServer(t)
		wantErr(t, first(s.AddUser("ann", []byte("x")), s.AddEntity(pskEntity("device"))), nil)
		wantErr(t, s.store.Update(t.Context(), change), nil)
		if _, err := s.Summary(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
