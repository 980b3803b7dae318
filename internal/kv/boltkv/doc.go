// Package boltkv is a [kv.Store] in one file on the local disk, with
// go.etcd.io/bbolt, hardened for what must not be lost or taken back unnoticed.
//
// # Which function do I want
//
//   - [Open] opens a file or makes it; a [Layout] says what is in it.
//   - [DB.Snapshot] copies a file that is open, [DB.Free] reads its pages;
//     [Layout.Restore] and [Layout.Compact] put another one in the place of a file that
//     nobody has open. [Layout.OnCopy] is for a look at a backup that is not to be changed.
//
// # What a caller can rely on
//
// Opening a file reads all of it: the pages, before bbolt follows them into memory,
// the record that says what the file is for, and every record with its checksum,
// which covers the place of the record, too. What is wrong is [kv.ErrDamaged]; it
// neither crashes the process nor looks like a file in which less happened. Neither
// does a file that vanishes or shrinks while it is open.
//
// Every change is one transaction that is on the disk before Update returns. Updates
// that arrive while another one is brought to the disk share the next transaction.
//
// One process has a file open at a time: [kv.ErrInUse]. Files have mode 0600. What
// takes the place of a file is complete and on the disk before it does.
package boltkv
