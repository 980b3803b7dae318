// Package etcdkv is a [kv.Store] in an etcd cluster, with go.etcd.io/etcd/client/v3, for
// a state that several servers share.
//
// # Which function do I want
//
// [Open] connects to a cluster according to a [Config], and finds or makes a store there;
// a [Layout] describes its contents. [Follow] also keeps a copy in memory, for a server
// that reads the same records for every message.
//
// # What a caller can rely on
//
// A View is a snapshot of one revision that is not older than any Update that returned
// before, in any process. It costs one request for each read.
//
// An Update also reads a snapshot, and makes its changes in one transaction if nothing
// that it read has changed in the meantime: records, missing records, and ranges,
// including what was added to and removed from them. Otherwise its function runs again,
// until the context ends. It costs one request for each read and one for the changes.
//
// A change whose answer is lost is neither repeated blindly nor given up: each
// transaction leaves a mark in a record used by this Update only, by which the next
// request finds out whether the transaction was made, and rules out that it is made
// later. Only if etcd does not answer that either, or the context ended, is the error
// [ErrUncertain].
//
// A store that was removed is an error, not an empty store, and so is a cluster that went
// back, for example because a backup was restored: its revision shows that, or the marks of
// a process that made changes since the backup. From then on, every answer is an error.
// Answers of another cluster than the first one that answered are not used. Each record has
// a checksum over its value, table and key.
//
// # A copy in memory
//
// A [Follower] learns of changes through one watch over all tables that it copies, which
// delivers those of one transaction together. A separate request to the majority of the
// members confirms that the watch is not behind. If it is behind, or ends, the copy is
// made anew. Recall therefore returns what etcd contained at most a second ago, or at
// most [Following.Staleness] ago while etcd does not answer, or fails with [kv.ErrStale].
//
// # Keys
//
// A record is at PREFIX/TABLE/KEY. The format record is at PREFIX/format/format, framed
// like the others. PREFIX/.marks/ has the marks, and PREFIX/.removed/ has a record for
// each table, which changes whenever something is removed from the table. PREFIX/=news/
// has one record, which changes with every table that followers copy; in keys, the names
// of the tables that they do not copy begin with ~.
//
// # What it needs of the cluster
//
// etcd 3.4 or newer with its usual limits: 128 operations in a transaction, and 1.5 MiB
// in a request. etcd keeps old revisions until they are compacted: start it with
// --auto-compaction-retention=1h or so. Anyone who can write the keys of a store can undo
// revocations: give each store its own user with a role for its prefix.
//
// The build tag noetcd leaves out the client of etcd; Open then returns an error.
package etcdkv
