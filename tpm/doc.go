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
//   - To keep AES keys for a TPM that has no AES: package tpm/hostaes, over [SealData].
//   - To keep signing keys elsewhere than in the state file: [Store.CreateBlob],
//     [Store.BlobSigner] and [Store.UseBlob].
//   - To give a device an identity, and prove it to an authority: package
//     tpm/identity, and tpm/enroll at the authority.
//   - To notice when an old copy of a file was restored: [Store.DefineCounter].
//   - To use a TPM whose hierarchies have passwords: [Device.SetPasswords], and
//     [Hierarchy] for commands of your own.
//   - To put back a storage key that another program removed: [KeepStorageKey].
//   - To run TPM commands of your own: [Open] and [Device.Do], and [Store.With]
//     for those that need a key of the store.
//
// # How keys are kept
//
// One storage key stays in the TPM: by default that of the TCG's ECC P-256 template.
// Every other key is a blob under it, which only this TPM loads: provisioned keys are
// in the state file, session keys in memory, and sealed ones wherever the caller keeps
// them. A TPM has room for three loaded keys, so the least recently used one is
// flushed when another is needed.
//
// Keys without a PIN have no authorization value and are not subject to the
// dictionary attack protection, so that sudden losses of power lock nothing. Keys
// with a PIN are; a wrong one is tried once. A TPM counts a sudden loss of power
// after the use of such a key as a wrong PIN, even if the PIN was right.
//
// Commands go through a session that is salted with the storage key of the state
// file. It encrypts PINs, keys, plaintext and tags on the bus, and a changed response
// is refused. On swtpm a MAC or an AES block takes 1.6 times as long as without a
// session (about 15 µs more for 32 bytes and 20 µs for 1024), and RSA and ECDSA at
// most 2 percent longer; BenchmarkStore measures it. Starting the session takes
// 0.7 ms, once.
//
// # What a TPM cannot do
//
// A TPM has no commands to wrap its keys with AES Key Wrap, or to unwrap into itself
// keys that a peer wrapped with RSA-OAEP or AES Key Wrap: they are
// errors.ErrUnsupported. RSA decryption, and AES keys that reveal, hand bytes to this
// process: see [keystore.RSADecrypt2048] and [keystore.AESReveal128]. Many chips lack
// TPM2_EncryptDecrypt2, and with it AES encryption; CMAC, P-384 and RSA above 2048
// bits are optional too: see [Device.Capabilities].
//
// # What it does not protect
//
//   - Anyone who can use the TPM and read the state file can use the keys that
//     have no PIN, and session keys, as this process does, but cannot extract
//     them.
//   - Anyone who can write the state file can put one key of this TPM in place of
//     another of the same algorithm.
//   - An attacker between the program and the TPM during Init can have a storage
//     key of their own pinned. If that matters, have an endorsement key vouch for
//     the storage key; see [Store.WithStorageKey].
//   - The names of keys, sizes of data, digests that are signed, and
//     initialization vectors pass in clear on the bus.
//   - Restoring a snapshot of a virtual machine restores its TPM too, with
//     counters, and keys that were destroyed.
//   - Blobs of destroyed keys may be in copies of the state file: the TPM loads
//     them until it is cleared.
package tpm
