// Package split is a key store over two: provisioned keys stay in a device, and session
// keys are in the memory of this process. It is for PKCS #11 tokens on which every object
// is a token object, so that they hold the identity of a server and the keys of its tokens,
// but no session.
//
// Sealed data is encrypted (AES-256-CBC) and then authenticated (HMAC-SHA256) by keys
// that the device made and that never leave it. So whoever reads a state or a recorded
// token needs the device; but unlike the sealing keys of a device that makes session keys,
// these give what was sealed in clear to whoever may use them.
//
// A key that does another thing in the device than it is for has another label there: that
// of the key after "memory:". Such are the sealing keys, and those that unwrap session
// keys, which decrypt in the device.
package split
