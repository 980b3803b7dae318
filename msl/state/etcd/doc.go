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
// When a method returns, its change is on the disks of a majority of the cluster. What
// one server accepted, renewed or revoked holds for all of them: of several servers that
// receive a message with the same non-replayable id at the same time, one accepts it.
//
// A server from [Open] judges senders by a copy of the state in memory, without a request
// to etcd. It learns of changes at other servers within milliseconds, and notices within
// a second if it no longer does. After some time without etcd ([Config.Staleness]) the
// copy is no longer used: every judgment fails until etcd is back. Ids and renewals are
// never judged by the copy, and therefore fail as soon as etcd does not answer.
//
// # What it costs
//
// A non-replayable id or a renewal costs one read and one transaction, shared with those
// that arrive at the same server while another one is under way. The copy has everything
// except the records of ids and renewals: about as many bytes as in etcd. The build tag
// noetcd leaves out the client of etcd; every function then returns an error.
package etcd
