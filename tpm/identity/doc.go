// Package identity gives a device an identity that cannot leave its TPM 2.0, and
// proves it to an authority. It is the device's side of an enrollment; package
// tpm/enroll is the authority, and describes the messages.
//
// # The keys of a device
//
//   - The EK (endorsement key) is made from a seed that the maker of the TPM
//     left in it, and only decrypts. It often has a certificate of the maker.
//     The hash of its public key names the device.
//   - The AK (attestation key) is a restricted key: it signs only what the TPM
//     itself has to say.
//   - The LDevIDs (local device identities, IEEE 802.1AR) are ordinary signing
//     keys, with which the device authenticates itself from then on. Clearing
//     the TPM destroys them, and the AK.
//
// The AK and the LDevIDs are under the storage key of the [tpm.Store] that the
// device has anyway, at the handle that its URI chose. Their blobs are in a state
// file of their own, with the certificates. An identity that was made under
// another storage key of the same TPM stays under that one.
//
// # Which function do I want
//
//   - [Open], then [Device.Init] and [Device.Enroll], each as often as you like:
//     both go on where they were interrupted.
//   - For the identity itself: [Device.Credentials]. Before its certificates
//     expire: [Device.Renew].
//   - To show people what is there: [Device.Status], and [Device.Check] to ask
//     the TPM whether it still is. If the store does not even open: [Diagnose].
//   - To prove to the authority that another key is in the same TPM:
//     [Device.Certify]. To prove how the machine was started: [Device.Quote].
//
// # What it does not protect
//
//   - It does not say which machine the TPM is in, or who uses it. Anyone who
//     controls the machine can use the identity there, though not take it away.
//   - The state file has no secret in it, but whoever can write it can make the
//     device lose its identity.
//   - The device believes the name and the certificates that it gets: enroll at
//     an authority that authenticates itself, over an encrypted connection. The
//     messages are signed but not secret, and they name the device.
//   - Someone on the bus of the TPM learns the secret of a challenge, which is
//     useless without the AK.
//   - An LDevID has no PIN: a program that may use the TPM and read the state
//     file can sign with it.
package identity
