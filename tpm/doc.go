// Package tpm is a [keystore.Store] on a TPM 2.0: the chip of a device or a
// machine, or swtpm in development.
//
// # Which function do I want
//
//   - To make a store on a TPM: [Init], once. To use it: [OpenStore]. Both take
//     a tpm: URI; see [URI].
//   - To make, list and destroy provisioned keys: the [keystore.Admin] methods
//     of [Store]. To keep one in the TPM itself: [Store.Persist].
//   - To share keys with other programs on the same TPM: [Store.ExportTSS2] and
//     [Store.ImportTSS2].
//   - To take session keys from a peer without seeing them:
//     [Store.NewImportParent], and [Duplicate] at the peer. To keep such keys:
//     [Store.ImportDuplicate].
//   - To count what must not be undone by an old copy of a file:
//     [Store.DefineCounter].
//   - To run TPM commands of your own: [Open] and [Device.Do], and [Store.With]
//     for those that need a key of the store.
//
// # How keys are kept
//
// One storage key, the TCG's for ECC P-256 unless the handle has another, stays
// in the TPM. Every other key is a blob under it that only this TPM loads:
// provisioned keys in the state file, session keys in memory, sealed ones
// wherever the caller keeps them. A TPM has room for three loaded keys, so they
// come and go, the least recently used one first.
//
// Keys without a PIN have no authorization value and are not subject to the
// dictionary attack protection, so that sudden losses of power lock nothing.
// With a PIN they are; a wrong one is tried once. A TPM counts a sudden loss of
// power after the use of such a key as a wrong PIN, even after the right one.
//
// Commands go through a session that is salted with the storage key of the state
// file. It encrypts PINs, keys, tags and plaintext in both directions, and a
// changed answer is refused. On swtpm this makes a tag or a block of AES 1.6 times
// as long as the same command without a session (about 15 µs more for 32 bytes
// and 20 µs for 1024), and adds 2 percent at most to RSA and ECDSA; BenchmarkStore
// measures it. The session itself takes 0.7 ms, and lasts.
//
// # What a TPM cannot do
//
// Operations for which a TPM has no command are errors.ErrUnsupported: AES Key Wrap
// of its keys, and unwrapping into the TPM what a peer wrapped with RSA-OAEP or AES
// Key Wrap.
// RSA decryption, and AES keys that reveal, hand bytes to this process: see
// [keystore.RSADecrypt2048] and [keystore.AESReveal128]. Many chips lack
// TPM2_EncryptDecrypt2, and with it AES encryption; CMAC, P-384 and RSA above
// 2048 bits are optional too. [Device.Capabilities] tells.
//
// # What it does not protect
//
//   - Anyone who can use the TPM and read the state file can use session keys,
//     and the keys that have no PIN, as this process does. They cannot extract
//     them.
//   - Anyone who can write the state file can put one key of this TPM in the
//     place of another one of the same algorithm.
//   - An attacker between this process and the TPM during Init can substitute a
//     storage key. Where that matters, have the storage key certified by an
//     endorsement key.
//   - The names of keys, sizes of data, digests that are signed, and
//     initialization vectors pass in the clear on the bus.
//   - A snapshot of a virtual machine includes its TPM: restoring it restores
//     counters, and keys that were destroyed.
//   - Blobs of destroyed keys in copies of the state file: the TPM loads them
//     until it is cleared.
package tpm
