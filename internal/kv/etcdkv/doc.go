// Package etcdkv is a [kv.Store] in an etcd cluster, with go.etcd.io/etcd/client/v3, for
// a state that several servers share.
//
// # Which function do I want
//
// [Open] connects to a cluster, as [Config] says, and finds or makes a store there; a
// [Layout] describes its contents. [Follow] also keeps a copy in memory, for a server that
// reads the same records for every message.
//
// # What a caller can rely on
//
// A View is a snapshot of one revision that is not older than any Update that returned
// before, in whichever process. It costs one request for each read.
//
// An Update reads a snapshot, too, and makes its changes in one transaction, if nothing
// that it read was changed meanwhile: records, records that were missing, and ranges with
// what was added to and removed from them. Otherwise its function runs again, until the
// context ends. It costs one request for each read and one for the changes.
//
// A change whose answer is lost is neither repeated blindly nor given up: each transaction
// leaves a mark in a record that belongs to this Update alone, by which the next request
// finds out whether it was made, and rules out that it still will be. Only if etcd does
// not answer that either, or the context ended, is the error [ErrUncertain].
//
// A store that was removed is an error, not an empty store, and so is a cluster that went
// back to an earlier revision, for example because a backup was restored. Each record has
// a checksum over its value and place.
//
// # A copy in memory
//
// A [Follower] hears of changes by one watch over all tables that it copies, which delivers
// those of one transaction together. That the watch is not behind is found out by a request
// of its own, to the majority of the members. If it is behind, or ends, the copy is made
// anew. Recall therefore either tells what etcd had a second ago at the earliest, or at most
// [Following.Staleness] ago while etcd does not answer, or fails with [kv.ErrStale].
//
// # Keys
//
// A record is at PREFIX/TABLE/KEY. The format record is at PREFIX/format/format, framed as
// the others. PREFIX/.marks/ has the marks, and PREFIX/.removed/ has a record for each
// table, which changes whenever something is removed from the table. PREFIX/=news/ has one
// record, which changes with every table that followers copy; the names of the tables that
// they do not copy begin with ~ in keys.
//
// # What it needs of the cluster
//
// etcd 3.4 or newer with its usual limits: 128 operations in a transaction, and 1.5 MiB in
// a request. etcd keeps old revisions until they are compacted: start it with
// --auto-compaction-retention=1h or so. Whoever can write the keys of a store can undo
// revocations: give each store a user of its own with a role for its prefix.
//
// The build tag noetcd leaves out the client of etcd; Open then only says so.
package etcdkv
