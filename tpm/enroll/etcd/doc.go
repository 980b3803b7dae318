// Package etcd keeps the records of an authority in an etcd cluster, for several servers
// that enroll the same devices. Package tpm/enroll defines what is kept, and the rules.
//
// # Which function do I want
//
//   - A server: [Open]. [Create] makes the records of a new group of servers.
//   - A program that looks at records or decides about devices, and ends: [Administer].
//   - From a file: [Import]. To a file: enroll.WriteFile.
//
// # What a caller can rely on
//
// A device may send each message of its enrollment to another server, if all make challenges
// with the same key. When a method returns, its change is on the disks of a majority of the
// cluster. Of several servers that decide about a device at once, one does, and the others
// decide anew, by what it wrote: a challenge counts once for all of them. Lists and single
// records are those of the moment when they are asked for (linearizable).
//
// A server judges the tokens of devices by a copy in memory, which is not used any more after
// a time without etcd ([Config.Staleness]).
//
// With a [Config.Key], whoever can write etcd and has no access to that key cannot lift a
// revocation, or change, add, remove or put back a record unseen. The records themselves are
// not in memory: each is compared with its digest when it is read. A store that is put back
// whole is noticed by servers that run meanwhile, and not by those that start afterwards.
// Records are not encrypted. The rate of messages, which is counted for all servers together,
// is not authenticated.
//
// # What it costs
//
// The copy has about 800 bytes of a device; a record takes some kilobytes in etcd. The build
// tag noetcd leaves out the client of etcd; every function then only says so.
package etcd
