package state

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestNewer reads records of a later version, which has further numbers, bits or fields:
// they are refused as that, and not as damaged, and stay as they are.
func TestNewer(t *testing.T) {
	key, err := pairKey("device", 1)
	wantErr(t, err, nil)
	for name, c := range map[string]struct {
		table, key string
		value      []byte
		uses       []func(*Server) error
	}{
		"ids": {tableIDs, string(key), encodeInts(1, 2, 3), []func(*Server) error{
			func(s *Server) error { return s.AcceptID(t.Context(), "device", 1, 9) },
			func(s *Server) error { _, err := s.Forget(t.Context(), time.Hour); return err },
		}},
		"sequences": {tableSequences, string(key), encodeInts(9, 6, 3, 2, 1), []func(*Server) error{
			func(s *Server) error { _, err := s.Renew(t.Context(), "device", 1, 9); return err },
			func(s *Server) error { return s.Renewable(t.Context(), "device", 1, 9) },
		}},
		"mark": {tableEntityMarks, "device", encodeInts(markEnd|markRevoked, 2), []func(*Server) error{
			func(s *Server) error { return s.Revoked(t.Context(), "device", "") },
			func(s *Server) error { return s.RevokeEntity("device") },
			func(s *Server) error { return s.UnrevokeEntity("device") },
			func(s *Server) error { return s.AddEntity(pskEntity("device")) },
		}},
		"entity": {tableEntities, "device", []byte(`{"identity":"device","scheme":"NONE","only_at_night":true}`), []func(*Server) error{
			func(s *Server) error { _, err := s.Entity(t.Context(), "device"); return err },
			func(s *Server) error { _, err := s.Entities(); return err },
		}},
		"user": {tableUsers, "ann", []byte(`{"scrypt":{}}`), []func(*Server) error{
			func(s *Server) error { _, err := s.Users(); return err },
		}},
	} {
		s := newServer(t)
		put := func(tx kv.Tx) error { return tx.Put(c.table, []byte(c.key), c.value) }
		wantErr(t, s.store.Update(t.Context(), put), nil)
		for i, use := range c.uses {
			if err := use(s); !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
				t.Errorf("%s, use %d: %v, want ErrNewer", name, i, err)
			}
		}
		wantErr(t, s.store.View(t.Context(), func(tx kv.Reader) error {
			now, err := tx.Get(c.table, []byte(c.key))
			if !bytes.Equal(now, c.value) {
				t.Errorf("%s: it was changed: %q", name, now)
			}
			return err
		}), nil)
	}
}
