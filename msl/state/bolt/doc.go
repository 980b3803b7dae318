// Package bolt keeps what the protocol must not forget in one file on the local disk,
// with go.etcd.io/bbolt. Package msl/state defines what is kept, and the rules.
//
// # Which function do I want
//
//   - A server: [ReopenServer], or [CreateServer] when it is new; [OpenServer] does
//     either. A [Server] is a state.Server in a file.
//   - To check, copy, restore and compact its file: [Server.Check], [Server.Snapshot],
//     [RestoreServer], [CompactServer].
//   - To authenticate a file by a key that is not in it: [Files], with a [Guard].
//   - A client: [OpenClient]. A [Client] is a state.Client in a file.
//
// # What a caller can rely on
//
// When a method returns, its change is on the disk: every change is one transaction
// that is synced before the method returns, so a process may be killed at any time.
// Changes that arrive while another one is being synced share the next sync.
//
// Only one process at a time can have a file open: commands that change a server's file
// get [ErrInUse] while a server runs on it, and vice versa. Files have mode 0600.
// Opening a file reads all of it, and fails if it is damaged; every record has a
// checksum.
//
// # What it does not protect
//
// The file is not encrypted. Pre-shared keys in it are sealed by their key store and
// passwords are hashed, but names, public keys and certificates can be read. Without a
// [Guard] it is not authenticated either: anyone who can write the file can lift a
// revocation. With one, that is [ErrForged], even if the record that authenticates the
// others is removed, provided the guard has a mark. The records of ids and renewals are
// not authenticated: anyone who can write the file can make recorded messages be accepted
// again. A whole file that is put back is as authentic as it was, except to a process
// that has it open.
//
// Restoring a backup or deleting the file undoes everything since then: recorded messages
// could be replayed, and revoked entities and users come back. [RestoreServer] therefore
// invalidates every older token. If you replace the file by other means, make new issuer
// keys and destroy the old ones.
package bolt
