// Package tpm is a [keystore.Store] on a TPM 2.0: the chip of a device or a
// machine, or swtpm in development.
//
// # Which function do I want
//
//   - To make a store on a TPM: [Init], once. To use it: [OpenStore]. Both take
//     a tpm: URI; see [URI].
//   - To make, list and destroy provisioned keys: the [keystore.Admin] methods
//     of [Store]. To keep one in the TPM itself: [Store.Persist].
//   - To share keys with other programs on the same TPM, or take a key that another
//     machine wrapped for it: [Store.ExportTSS2] and [Store.ImportTSS2].
//   - To accept session keys from a peer without seeing them: [Store.NewImportParent],
//     and [Duplicate] at the peer. To keep such keys: [Store.ImportDuplicate].
//   - To keep AES keys for a TPM that has no AES: package tpm/hostaes, over [SealData].
//   - To keep signing keys outside the state file: [Store.CreateBlob], [Store.BlobSigner]
//     and [Store.UseBlob].
//   - To give a device an identity, and prove it to an authority: package
//     tpm/identity, and tpm/enroll at the authority.
//   - To notice when an old copy of a file was restored: [Store.DefineCounter].
//   - To use a TPM whose hierarchies have passwords: [Device.SetPasswords], and
//     [Hierarchy] for your own commands.
//   - To restore a storage key that another program removed: [KeepStorageKey].
//   - To run your own TPM commands: [Open] and [Device.Do], and [Store.With] for those
//     that need a key of the store.
//
// # How keys are kept
//
// One storage key stays in the TPM: by default the one from the TCG's ECC P-256 template.
// Every other key is a blob under it, which only this TPM loads: provisioned keys are in
// the state file, session keys in memory, and sealed keys wherever the caller keeps them.
// A TPM has room for three loaded keys, so the least recently used one is flushed when
// another is needed.
//
// Keys without a PIN have no authorization value and are not subject to the dictionary
// attack protection, so that sudden power losses lock nothing. Keys with a PIN are; a
// wrong PIN is tried only once. If power is lost suddenly after such a key was used, a
// TPM counts that as a wrong PIN, even if the PIN was right.
//
// Commands use a session salted with the storage key of the state file. It encrypts PINs,
// keys, plaintext and tags on the bus, and a changed response is refused. On swtpm a MAC
// or an AES block takes 1.6 times as long as without a session (about 15 µs more for 32
// bytes and 20 µs for 1024), and RSA and ECDSA at most 2 percent longer; BenchmarkStore
// measures it. Starting the session takes 0.7 ms, once.
//
// # What a TPM cannot do
//
// A TPM has no commands to wrap its keys with AES Key Wrap, or to unwrap into itself keys
// that a peer wrapped with RSA-OAEP or AES Key Wrap: these are errors.ErrUnsupported. RSA
// decryption, and AES keys that reveal, hand bytes to this process: see
// [keystore.RSADecrypt2048] and [keystore.AESReveal128]. Many chips lack
// TPM2_EncryptDecrypt2, and with it AES encryption; CMAC, P-384 and RSA above 2048 bits
// are also optional: see [Device.Capabilities].
//
// # What it does not protect
//
//   - Anyone who can use the TPM and read the state file can use the keys that
//     have no PIN, and session keys, as this process does, but cannot extract
//     them.
//   - Anyone who can write the state file can replace one key of this TPM with another of
//     the same algorithm.
//   - An attacker between the program and the TPM during Init can make Init pin the
//     attacker's storage key. If that matters, have an endorsement key vouch for the
//     storage key; see [Store.WithStorageKey].
//   - Key names, data sizes, signed digests and initialization vectors are in the clear on
//     the bus.
//   - Restoring a snapshot of a virtual machine also restores its TPM, including counters
//     and destroyed keys.
//   - Copies of the state file may contain blobs of destroyed keys: the TPM loads them
//     until it is cleared.
package tpm
