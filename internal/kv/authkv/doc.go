// Package authkv authenticates the records of a store with a key that is not in it, so
// that someone who can write to the store cannot change, add, remove or put back a record
// undetected.
//
// # Which function do I want
//
// [Open] returns a [Store] on top of another one: either a [kv.Shared] store, whose copy
// in memory it watches as records arrive, or a store that it reads completely when asked
// to ([Store.Verify]). [Begin] makes the root of a new store. A [Guard] does all of that
// for a store that only one process at a time has open.
//
// # How it works
//
// The store has one additional record, the root: a random id, a sum over all records, a
// count of the changes, and a tag over all three by a [Key]. An Update that changes a
// record verifies the root, removes the old record from the sum, adds the new one, and
// tags the result; it costs two operations of the key, or one if nobody else can have
// made the root. A reader compares the root with the sum of its records. The sum is the
// lattice hash LtHash16 of 1024 numbers (Bellare and Micciancio, A New Paradigm for
// Collision-Free Hashing, 1997; Lewi and others, Securing Update Propagation with
// Homomorphic Hashing, 2019), so its cost does not depend on the number of records.
//
// # What it does not protect
//
// Tables that are apart are not in the sum. If a whole store is put back, with its root,
// processes that have seen a later root notice, until they end; a process that starts
// afterward does not. In a store without a copy in memory, a record changed after Verify
// is found by the next Verify.
package authkv
