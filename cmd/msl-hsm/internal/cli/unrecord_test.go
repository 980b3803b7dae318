package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// unrecord FILE TABLE KEY removes a record from a file, as somebody does who can write it.
func unrecord(ts *testscript.TestScript, _ bool, args []string) {
	db, err := bbolt.Open(ts.MkAbs(args[0]), 0o600, nil)
	ts.Check(err)
	ts.Check(db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(args[1]))
		if b == nil || b.Get([]byte(args[2])) == nil {
			return fmt.Errorf("%q has no record %q", args[1], args[2])
		}
		return b.Delete([]byte(args[2]))
	}))
	ts.Check(db.Close())
}

// usedlater FILE says in a state that its tokens were used an hour ahead of the clock.
func usedLater(ts *testscript.TestScript, _ bool, args []string) {
	db, err := bbolt.Open(ts.MkAbs(args[0]), 0o600, nil)
	ts.Check(err)
	ts.Check(db.Update(func(tx *bbolt.Tx) error {
		ids := tx.Bucket([]byte("ids"))
		key, framed := ids.Cursor().First()
		value, ok := kv.Unframe("ids", key, framed)
		if !ok {
			return fmt.Errorf("no token was used")
		}
		later := binary.BigEndian.AppendUint64(bytes.Clone(value[:8]), uint64(time.Now().Add(time.Hour).Unix()))
		return ids.Put(bytes.Clone(key), kv.Frame("ids", key, later))
	}))
	ts.Check(db.Close())
}
