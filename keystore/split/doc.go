// Package split is a key store over two: provisioned keys stay in a device, and session
// keys are in the memory of this process. It is for PKCS #11 tokens on which every object
// is a token object, so that they hold the identity of a server and the keys of its tokens,
// but no session.
//
// Sealed data is encrypted (AES-256-CBC) and then authenticated (HMAC-SHA256) by keys that
// the device made and that never leave it. So anyone who wants to read a state or a
// recorded token needs the device. But unlike the sealing keys of a device that makes
// session keys, these decrypt what was sealed for anyone who may use them.
//
// A key whose purpose differs in the device has a different label there, which is its own
// after "memory:": the sealing keys, and the keys that unwrap session keys, which in the
// device decrypt.
package split
