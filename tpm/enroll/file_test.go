package enroll

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestFileCheck counts the records, and finds what does not lead to one.
func TestFileCheck(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	if states, err := o.file.Check(); err != nil || len(states) != 1 || states[Enrolled] != 1 {
		t.Errorf("%v, %v", states, err)
	}
	for _, table := range []string{tableNames, tableSerials, tablePending} {
		for name, change := range map[string]func(kv.Tx) error{
			"one too many": func(tx kv.Tx) error { return tx.Put(table, []byte("x"), []byte("x")) },
			"another":      func(tx kv.Tx) error { return tx.Put(table, firstKey(t, tx, table), make([]byte, 32)) },
			"one missing":  func(tx kv.Tx) error { return tx.Delete(table, firstKey(t, tx, table)) },
		} {
			if table == tablePending && name != "one too many" {
				continue // nobody is pending
			}
			enough := errors.New("enough")
			err := o.file.db.Update(t.Context(), func(tx kv.Tx) error {
				if err := change(tx); err != nil {
					t.Error(err)
				}
				if _, err := (storedTx{tx}).check(map[State]int{}); !errors.Is(err, ErrDamaged) {
					t.Errorf("%s: %s: %v", table, name, err)
				}
				return enough
			})
			checkError(t, err, enough)
		}
	}
}

func firstKey(t *testing.T, r kv.Reader, table string) []byte {
	page, err := r.Range(table, nil, nil, 1)
	if err != nil || len(page) == 0 {
		t.Errorf("%s is empty: %v", table, err)
		return nil
	}
	return bytes.Clone(page[0].Key)
}

// TestNewerRecord reads a record of a later version, which has a further field: it is
// refused as that, and keeps the field.
func TestNewerRecord(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	checkError(t, f.enroll(o), nil)
	var key, newer []byte
	err := o.file.db.Update(t.Context(), func(tx kv.Tx) error {
		key = firstKey(t, tx, RecordTable)
		value, err := tx.Get(RecordTable, key)
		if err != nil {
			return err
		}
		payload := bytes.Replace(value[sha256.Size:], []byte("{"), []byte(`{"only_at_night":true,`), 1)
		newer = frame(ID(key), payload)
		return tx.Put(RecordTable, key, newer)
	})
	checkError(t, err, nil)
	checkError(t, o.Approve(t.Context(), ID(key), "other", ""), kv.ErrNewer)
	err = o.file.db.View(t.Context(), func(r kv.Reader) error {
		now, err := r.Get(RecordTable, key)
		if !bytes.Equal(now, newer) {
			t.Errorf("it was changed: %s", now)
		}
		return err
	})
	checkError(t, err, nil)
}

// TestEmptyFile is not taken for a new one.
func TestEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "is empty: restore a backup") {
		t.Error(err)
	}
}

func TestFile(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(o.path); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	o.file.Close()
	good, err := os.ReadFile(o.path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(good), `"state":"enrolled"`)
	bad := []byte(string(good))
	bad[at+10] ^= 1
	for name, text := range map[string][]byte{"a changed byte": bad, "a part of it": good[:len(good)/4], "something else": []byte(strings.Repeat("x", 9000))} {
		path := filepath.Join(t.TempDir(), "damaged")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.open()
	if err := os.Chmod(o.path, 0o644); err != nil {
		t.Fatal(err)
	}
	o.file.Close()
	if _, err := OpenFile(o.path); err == nil {
		t.Error("a file for all is taken")
	}
	os.Chmod(o.path, 0o600)
	o.open()
}
