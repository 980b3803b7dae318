// Package state is what a server, or a client, must not forget: which messages were
// accepted, which tokens renewed, who is registered, removed or revoked, and until
// when each of that matters. It has the records and the rules, written once for every
// database that they may be in; package msl/state/bolt has them in a file.
//
// # Which function do I want
//
//   - A [Server] is its msl.State, its msl.Directory and the list of its users
//     ([Accounts.Verify]). Its parts are a [Directory] of entities, the [Accounts] of
//     users, and what came of its [Tokens].
//   - To register, remove or revoke entities and users: the other methods of
//     [Directory] and [Accounts].
//   - To let it forget what no token needs any more: [Server.StartPruning], or
//     [Server.Forget] now.
//   - A [Client] is its msl.ClientState.
//
// # What a caller can rely on
//
// What a method has answered is durable. A check and the change that depends on it are
// one transaction, so the same id, renewal or name is never taken twice, however many
// ask at once.
//
// # What it does not protect
//
// Records are neither encrypted nor authenticated. Pre-shared keys in them are sealed
// by their key store and passwords are hashed, but names, public keys and certificates
// can be read, and whoever can write them can lift a revocation. An old copy of the
// records takes the answers since then back: see [EndTokens].
package state
