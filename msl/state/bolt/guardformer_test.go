package bolt

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// formerGuarded is a file of an earlier version, which had ids and renewals in the sum, too.
// furnish was called for it.
func formerGuarded(t *testing.T) string { return formerFile(t, "authenticated.db") }

// forgeries are changes that a file of an earlier version does not pass with.
func forgeries() map[string]func(kv.Tx) error {
	first := func(tx kv.Tx, table string) []byte {
		page, err := tx.Range(table, nil, nil, 1)
		if err != nil || len(page) == 0 {
			return nil
		}
		return slices.Clone(page[0].Key)
	}
	return map[string]func(kv.Tx) error{
		"an id forgotten":     func(tx kv.Tx) error { return tx.Delete(state.TokenTables()[0], first(tx, state.TokenTables()[0])) },
		"a renewal forgotten": func(tx kv.Tx) error { return tx.Delete(state.TokenTables()[1], first(tx, state.TokenTables()[1])) },
		"a revocation lifted": func(tx kv.Tx) error { return tx.Delete("entity marks", []byte("thief")) },
		"all token records": func(tx kv.Tx) error {
			return errors.Join(tx.Delete("ids", first(tx, "ids")), tx.Delete("sequences", first(tx, "sequences")))
		},
	}
}

// TestFormerForged changes a file of an earlier version: it is as authentic as it was.
func TestFormerForged(t *testing.T) {
	for name, change := range forgeries() {
		path := formerGuarded(t)
		forge(t, path, change)
		for _, trust := range []authkv.Trust{authkv.Judge, authkv.Adopt} {
			if s, err := guarded(&kvtest.Mark{Made: true}, trust).Reopen(path); !errors.Is(err, ErrForged) {
				t.Errorf("%s: %+v, %v, want ErrForged", name, s, err)
			}
		}
		if _, err := guarded(&kvtest.Mark{Made: true}, authkv.Judge).Restore(path, path+"2", true); !errors.Is(err, ErrForged) {
			t.Errorf("%s: as a backup: %v, want ErrForged", name, err)
		}
	}
}

// TestFormerGuarded uses a file of an earlier version: commands leave it as it is, and a server
// takes the records of tokens out of what is authenticated.
func TestFormerGuarded(t *testing.T) {
	path, mark := formerGuarded(t), &kvtest.Mark{Made: true}
	use := func(f Files, id int64) {
		t.Helper()
		s, err := f.Reopen(path)
		if err != nil || s.Verdict != (Verdict{Authentic: true}) {
			t.Fatalf("%+v, %v", s, err)
		}
		if err := s.AcceptID(t.Context(), "camera", 1, id-1); err != msl.ErrMessageReplayed {
			t.Errorf("id %d: %v, want a replay", id-1, err)
		}
		err = errors.Join(s.AcceptID(t.Context(), "camera", 1, id), s.RevokeEntity("other"), s.VerifyRecords(t.Context()), s.Reauthenticate(t.Context()), s.Close())
		if err != nil {
			t.Fatal(err)
		}
	}
	command, serve := guarded(mark, authkv.Judge), guarded(mark, authkv.Adopt)
	use(command, 6)
	before := content(t, path)
	forge(t, path, forgeries()["an id forgotten"])
	if _, err := command.Reopen(path); !errors.Is(err, ErrForged) {
		t.Errorf("after a command: %v, want ErrForged", err)
	}
	write(t, path, before)
	earlier := func() error {
		l := serverLayout()
		l.Newest = authenticatedVersion
		db, err := boltkv.Open(path, l, boltkv.OpenExisting)
		if err == nil {
			err = db.Close()
		}
		return err
	}
	if err := earlier(); err != nil {
		t.Errorf("after a command, the earlier version: %v", err)
	}
	use(serve, 7)
	if err := earlier(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "use a newer msl-hsm") {
		t.Errorf("after a server, the earlier version: %v, want ErrFormat", err)
	}
	use(command, 8)
	use(serve, 9)

	forge(t, path, forgeries()["an id forgotten"])
	s, err := command.Reopen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.AcceptID(t.Context(), "camera", 1, 1), s.Close()); err != nil {
		t.Errorf("a replay, which the documentation tells of: %v", err)
	}
	forge(t, path, forgeries()["a revocation lifted"])
	if _, err := serve.Reopen(path); !errors.Is(err, ErrForged) {
		t.Errorf("after a server: %v, want ErrForged", err)
	}
}

// TestTokenRecordsCostNoKey has ids and renewals recorded while the key cannot be used.
func TestTokenRecordsCostNoKey(t *testing.T) {
	key := &countedKey{Key: kvtest.Secret("key")}
	f := Files{Guard{Key: func() (Key, authkv.Mark, error) { return key, nil, nil }}}
	s, err := f.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	before := key.used
	if err := errors.Join(s.AcceptID(t.Context(), "camera", 1, 5), renew(t.Context(), s)); err != nil || key.used != before {
		t.Errorf("%d uses of the key, %v", key.used-before, err)
	}
	if err := errors.Join(s.RevokeEntity("camera"), s.Close()); err != nil || key.used != before+1 {
		t.Errorf("%d uses of the key for a revocation, %v", key.used-before, err)
	}
}

type countedKey struct {
	Key
	used int
}

func (k *countedKey) Tag(data []byte) ([]byte, error) { k.used++; return k.Key.Tag(data) }

func (k *countedKey) Check(data, tag []byte) (bool, error) { k.used++; return k.Key.Check(data, tag) }
