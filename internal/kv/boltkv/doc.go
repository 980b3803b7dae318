// Package boltkv is a [kv.Store] in one file on the local disk, with go.etcd.io/bbolt,
// hardened for data that must not be lost or reverted undetected.
//
// # Which function do I want
//
//   - [Open] opens a file or creates it; a [Layout] describes its contents.
//   - [DB.Snapshot] copies an open file, and [DB.Free] reads its pages;
//     [Layout.Restore] and [Layout.Compact] replace a file that no process has open.
//     [Layout.OnCopy] reads a backup without changing it.
//
// # What a caller can rely on
//
// Opening a file reads all of it: the pages, before bbolt follows them into memory, the
// record that says what the file is for, and every record with its checksum, which also
// covers the record's table and key. Any damage is [kv.ErrDamaged]; it neither crashes
// the process nor makes the file look as if less had happened. The same applies to a file
// that vanishes or shrinks while it is open: from then on every access is an error, since
// writes would be lost.
//
// Every change is one transaction that is on disk before Update returns. Updates that
// arrive while another one is being synced share the next transaction.
//
// Only one process at a time can have a file open: others get [kv.ErrInUse]. Files have
// mode 0600. A file that replaces another is complete and on disk before it does.
package boltkv
