// Package state keeps what a server or a client must not forget: which messages were
// accepted, which tokens were renewed, who is registered, removed or revoked, and until
// when each of these matters. It defines the records and the rules once for every
// database; package msl/state/bolt keeps them in a file, and package msl/state/etcd in a
// cluster that several servers share.
//
// # Which function do I want
//
//   - For a server: a [Server] is its msl.State, its msl.Directory and the list of its
//     users ([Accounts.Verify]). It consists of a [Directory] of entities, the
//     [Accounts] of users, and the [Tokens], which record how tokens were used.
//   - To register, remove or revoke entities and users: the other methods of
//     [Directory] and [Accounts].
//   - To forget what no token needs anymore: [Server.StartPruning], or [Server.Forget] to
//     do it now.
//   - For a client: a [Client] is its msl.ClientState.
//
// # What a caller can rely on
//
// When a method returns, its change is durable. A check and the change that depends on it
// are one transaction, so the same id, renewal or name is never accepted twice, however
// many callers there are at the same time.
//
// # What it does not protect
//
// Records are neither encrypted nor authenticated. Pre-shared keys in them are sealed
// by their key store and passwords are hashed, but names, public keys and certificates
// can be read, and anyone who can write them can lift a revocation. Restoring an old
// copy of the records undoes everything since: see [EndTokens].
package state
