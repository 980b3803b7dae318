// Package etcd keeps the records of an authority in an etcd cluster, for several servers
// that enroll the same devices. Package tpm/enroll defines what is kept, and the rules.
//
// # Which function do I want
//
//   - A server: [Open]. [Create] makes the records of a new group of servers.
//   - A program that reads records or decides about devices, and then ends: [Administer].
//   - From a file: [Import]. To a file: enroll.WriteFile.
//
// # What a caller can rely on
//
// A device may send each message of its enrollment to a different server, if all make
// challenges with the same key. When a method returns, its change is on the disks of a
// majority of the cluster. If several servers decide about a device at the same time, one
// succeeds, and the others decide again on the basis of what it wrote: a challenge counts
// once for all of them. Lists and single records are those of the moment of the request
// (linearizable).
//
// A server judges the tokens of devices by a copy in memory, which is no longer used
// after some time without etcd ([Config.Staleness]).
//
// With a [Config.Key], anyone who can write to etcd but has no access to that key cannot
// lift a revocation, or change, add, remove or put back a record, without being detected.
// The records themselves are not in memory: each is compared with its digest when it is
// read. If the whole store is put back, running servers notice; servers that start
// afterward do not. Records are not encrypted. The rate of messages, which is counted for
// all servers together, is not authenticated.
//
// # What it costs
//
// The copy has about 800 bytes per device; a record takes some kilobytes in etcd. The
// build tag noetcd leaves out the client of etcd; every function then returns an error.
package etcd
