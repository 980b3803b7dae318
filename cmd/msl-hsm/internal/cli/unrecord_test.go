package cli

import (
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"
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
