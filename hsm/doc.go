// Package hsm is a [keystore.Store] on a PKCS #11 token: a hardware security
// module, a smart card, or SoftHSM in development.
//
// # Which function do I want
//
//   - To serve with the keys of a token: [Open], with an RFC 7512 URI and a
//     [PINSource].
//   - To make a token: [InitToken]. To see which there are: [Tokens].
//   - To make, list and destroy provisioned keys: the [keystore.Admin] methods
//     of [Store]. Keys that came from outside: [Store.Provision].
//   - To see what a module does: [Store.Probe]. To live with what it does not:
//     AllowWeak in [Config], and [Weaknesses] for the names.
//
// # How keys are kept
//
// Session keys are born in the token, sensitive, and may be wrapped until they
// are sealed; then the token itself refuses. Sealed keys come back as objects
// that are neither extractable nor modifiable. What a sealing key or an
// unwrapping key unwraps is bounded by its UNWRAP_TEMPLATE, so that the blobs in
// a state file and recorded traffic are of no use to somebody who has the PIN
// too. Open and Lookup prove this by trying, and refuse keys without it.
//
// Two kinds of keys bring bytes into the process, each made for that alone:
// RSA pairs that decrypt, and AES keys that reveal what a peer wrapped. What the
// latter unwraps can be nothing but a readable object, by their UNWRAP_TEMPLATE.
//
// After a failure of the device the store opens its sessions again, finds the
// provisioned keys and unwraps the sealed ones. Other session keys are lost
// ([keystore.ErrLost]).
//
// # What it does not protect
//
//   - Nothing from code in the same process: a PKCS #11 login is for the process.
//   - A second store on the same token in the same process does not have its
//     PIN checked, because the token is logged in already.
//   - Nobody else in the process may call C_Finalize and C_Initialize on the
//     same module: some hand out the same handles again, for other keys.
//   - A vendor's library that crashes takes the process with it.
//
// The package needs cgo and a platform other than Windows.
package hsm
