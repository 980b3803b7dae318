// Package authkv authenticates the records of a store with a key that is not in it, so that
// whoever can write the store cannot change, add, remove or put back a record unseen.
//
// # Which function do I want
//
// [Open] returns a [Store] over another one: a copy in memory of a [kv.Shared] store, whose
// records it watches as they come, or a store that it reads whole when it is asked to
// ([Store.Verify]). [Begin] makes the root of a new store. A [Guard] does all of that for a
// store that one process at a time has open.
//
// # How it works
//
// The store has one more record, the root: a random id, a sum over all records, a count of the
// changes, and a tag over all three by a [Key]. An Update that changes a record verifies the
// root, takes the old record out of the sum, adds the new one, and tags that; it costs two
// operations of the key, or one where nobody else can have made the root. A reader compares the
// root with the sum of what it has. The sum is the lattice hash LtHash16 of 1024 numbers (Bellare and Micciancio, A New Paradigm for
// Collision-Free Hashing, 1997; Lewi and others, Securing Update Propagation with Homomorphic
// Hashing, 2019), so that its cost does not depend on how many records there are.
//
// # What it does not protect
//
// Tables that are apart are not in the sum. A store that is put back whole, with its root, is
// noticed by those who have seen a later root, until they end, and not by a process that starts
// afterwards. Of a store without a copy in memory, a record that is changed after Verify is found
// by the next Verify.
package authkv
