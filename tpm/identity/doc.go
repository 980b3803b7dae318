// Package identity gives a device an identity that cannot leave its TPM 2.0, and
// proves it to an authority. It is the device's side of an enrollment; package
// tpm/enroll is the authority's, and describes the messages.
//
// # The keys of a device
//
//   - The EK (endorsement key) is made from a seed that the manufacturer left in the TPM,
//     and only decrypts. It often has a certificate from the manufacturer. The hash of
//     its public key identifies the device.
//   - The AK (attestation key) is a restricted key: it signs only what the TPM
//     itself produces, such as certifications of other keys.
//   - The LDevIDs (local device identities, IEEE 802.1AR) are ordinary signing
//     keys, with which the device authenticates itself from then on. Clearing
//     the TPM destroys them, and the AK.
//
// The AK and the LDevIDs are under the storage key of a [tpm.Store]. Their blobs are in a
// separate state file, with the certificates. An identity made under another storage key
// of the same TPM stays under that one.
//
// # Which function do I want
//
//   - To get an identity: [Open], then [Device.Init] and [Device.Enroll]. Both can be
//     repeated, and continue where they were interrupted.
//   - To use the identity: [Device.Credentials]. Before its certificates expire:
//     [Device.Renew].
//   - To show the state: [Device.Status]. To check that the TPM still has the keys:
//     [Device.Check]. If the store does not even open: [Diagnose].
//   - To prove to the authority that another key is in the same TPM: [Device.Certify]. To
//     prove how the machine was started: [Device.Quote], or to the authority regularly:
//     [Device.Attest].
//
// # What it does not protect
//
//   - It does not prove which machine the TPM is in, or who uses it. Anyone who
//     controls the machine can use the identity there, but cannot extract it.
//   - The state file has no secrets, but anyone who can write it can make the device
//     lose its identity.
//   - The device trusts the name and the certificates that it receives: enroll with an
//     authority that authenticates itself, over an encrypted connection. The messages are
//     signed but not secret, and they identify the device.
//   - Someone on the TPM's bus learns the secret of a challenge, which is useless without
//     the AK.
//   - An LDevID has no PIN: any program that can use the TPM and read the state file
//     can sign with it.
package identity
