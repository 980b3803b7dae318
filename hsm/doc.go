// Package hsm is a [keystore.Store] on a PKCS #11 token: a hardware security
// module, a smart card, or SoftHSM in development.
//
// # Which function do I want
//
//   - To serve with the keys of a token: [Open], with an RFC 7512 URI and a
//     [PINSource].
//   - To make a token: [InitToken]. To list tokens: [Tokens].
//   - To make, list and destroy provisioned keys: the [keystore.Admin] methods
//     of [Store]. Keys made elsewhere: [Store.Provision].
//   - To find out how well a module protects keys: [Store.Probe]. To accept its
//     weaknesses: AllowWeak in [Config], and [Weaknesses] for their names.
//
// # How keys are kept
//
// Session keys are born in the token, sensitive, and may be wrapped until they
// are sealed; then the token itself refuses. Sealed keys come back as objects
// that are neither extractable nor modifiable. Keys that a sealing key or an
// unwrapping key unwraps are bound to its UNWRAP_TEMPLATE, so that nobody, even
// with the PIN, can extract a key from the blobs in a state file or from recorded
// traffic. Open and Lookup test this by trying, and refuse keys that fail.
//
// Two kinds of keys bring bytes into the process, and are made only for that: RSA
// pairs that decrypt, and AES keys that reveal what a peer wrapped. The
// UNWRAP_TEMPLATE of the latter makes everything that they unwrap a readable object.
//
// # When the device fails
//
// An operation that fails is retried: on another session, then after the sessions
// were opened anew and the provisioned keys found again, then after the module was
// initialized anew. Sealed keys are unwrapped again in the new sessions; other session
// keys are lost ([keystore.ErrLost]). Each provisioned key must be the same as before,
// as shown by its public half, by its output for a constant, or by what it wrapped
// earlier. A module's verdict on data counts only if the module handles known good
// data correctly. Otherwise the device is blamed ([keystore.ErrUnavailable]), never the
// data or a key.
//
// No wait is longer than Config.Wait, even if a call never returns: a call that takes
// longer than Config.CallTimeout makes the store unavailable, and is named in the log.
//
// Provisioned keys are destroyed by the label and the CKA_ID that were just read.
// Programs that make versions of one key at the same time end up with different
// ones; those of one user on one machine take turns.
//
// # What it does not protect
//
//   - Other code in the same process can use the keys: a PKCS #11 login is valid
//     for the whole process.
//   - A second store on the same token in the same process does not have its
//     PIN checked, because the token is logged in already.
//   - Other code in the process must not call C_Finalize and C_Initialize on the
//     same module: some modules then reuse handles for other keys.
//   - A vendor's library that crashes takes the process with it.
//   - If the module makes a session object and reports a failure, the object is
//     found again and removed, except the first one after a minute without failures:
//     that one stays until the sessions are opened anew.
//
// The package needs cgo and a platform other than Windows.
package hsm
