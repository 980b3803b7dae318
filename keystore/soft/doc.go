// Package soft keeps keys in the memory of the process: for development, for
// builds without cgo, and for tests. It behaves as a device does: a key has only
// the interface of its algorithm, is locked once it was sealed, and is never exported.
//
// # Which function do I want
//
//   - A store that is gone with the process: [New].
//   - A store whose provisioned keys live in a file under a passphrase:
//     [Create] once, then [Open].
//   - Known keys, such as those of recorded test vectors: [Store.Provision] and
//     [Store.ProvisionKeyPair].
//
// # What it does not protect
//
// Anyone who can read the memory of the process has every key. Close overwrites the bytes
// of secret keys, but not what the standard library derived from them (AES key
// schedules, HMAC states, RSA and ECDSA private keys): those go with the
// garbage collector. Keep keys that matter in a device.
package soft
