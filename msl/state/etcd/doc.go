// Package etcd keeps what the protocol must not forget in an etcd cluster, for several
// servers that answer the same clients. Package msl/state defines what is kept, and the
// rules.
//
// # Which function do I want
//
//   - A server: [Open]. [Create] makes the state of a new network of servers.
//   - A program that registers, revokes or checks something and ends: [Administer].
//
// # What a caller can rely on
//
// When a method returns, its change is on the disks of a majority of the cluster. What was
// accepted, renewed or revoked at one server was so for all of them: of several servers
// that get a message with the same non-replayable id at once, one accepts it.
//
// A server of [Open] judges senders by a copy of the state in memory, without a request to
// etcd. It hears of changes at other servers within milliseconds, and finds out within a
// second whether it still does. After a time without etcd ([Config.Staleness]) the copy is
// not used any more: every judgement fails, until etcd is back. Ids and renewals are never
// judged by the copy, and so fail as soon as etcd does not answer.
//
// # What it costs
//
// A non-replayable id or a renewal costs one read and one transaction, which it shares with
// those that come to the same server while another one is under way. The copy has all but
// the records of ids and renewals: about as many bytes as in etcd. The build tag noetcd leaves out the client of etcd; every function
// then only says so.
package etcd
