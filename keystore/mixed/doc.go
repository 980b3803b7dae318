// Package mixed draws random bytes from two sources at once: the operating system, and
// the device that holds the keys, such as an HSM or a TPM. The bytes of both are combined
// with XOR, so that they are unpredictable if either source is, and neither can weaken
// the other as long as it does not know what the other one returns.
//
// An IV or a message id takes few bytes, and a call into a device may take milliseconds.
// So a [Reader] gets bytes of the device in advance, and keeps them in locked memory.
// Each is used once, and overwritten when it was used.
//
// # What it does not reach
//
// Since Go 1.24, crypto/rsa and crypto/ecdsa ignore the reader that a caller gives them
// in most operations: making RSA and EC keys in software, ECDSA signatures, and the
// padding of RSA. crypto/tls and crypto/ecdh draw from the operating system, too. Keys
// that a device makes come only from its own generator.
//
// A child that a process makes with fork(2) and without exec(2) must not use the Reader
// of its parent: on Linux the child does not have its memory, and so repeats nothing.
package mixed
