// Package keyx holds the key exchange schemes, one per file. A responder, which issues
// the master token, is a [msl.Responder]; a requester, which asks for it, is a
// [msl.Offerer].
//
//	ASYMMETRIC_WRAPPED, mechanism RSA   [AsymmetricWrapped], either side: session
//	                                    keys wrapped under the requester's RSA key,
//	                                    which may be made for one exchange
//	SYMMETRIC_WRAPPED, key id PSK       [SymmetricResponder], [SymmetricOfferer]:
//	                                    session keys wrapped under a pre-shared
//	                                    wrapping key
//	ASYMMETRIC_WRAPPED, mechanisms      [AsymmetricJOSE], either side: the same as
//	JWE_RSA, JWEJS_RSA, JWK_RSA and     JSON Web Keys, encrypted in four ways
//	JWK_RSAES
//	DIFFIE_HELLMAN                      [DiffieHellman], either side, with parameter
//	                                    groups of RFC 3526 and RFC 7919
//	JWE_LADDER, JWK_LADDER              [LadderResponder], [LadderOfferer]: a chain
//	                                    of wrapping keys, so that the pre-shared one
//	                                    is used once
//	TPM_IMPORT                          [TPMResponder], [TPMOfferer]: session keys go
//	                                    into a TPM as objects; only in this project
//
// [AsymmetricDecrypted] is a requester of the first scheme for a device, such as a TPM,
// that decrypts to its process.
//
// In the first two, the session keys are made in a key store and leave it only wrapped:
// neither side's process sees them. The same is true of a requester of TPM_IMPORT. All
// others force key bytes through the process, which [msl.Custody] must allow.
// [CustodyTable] lists where the bytes exist for each.
//
// # Key bytes in this process
//
// Key bytes that must be in the process are kept in memory that is locked against
// swapping and overwritten on every path: the keys themselves, the texts of JSON Web
// Keys, content encryption keys, the Diffie-Hellman secret. Copies that nothing here can
// overwrite remain on the heap or a stack until that memory is reused: AES key schedules
// and GCM tables (crypto/aes, crypto/cipher), the inner state of hashes (crypto/sha512),
// numbers and intermediate results of math/big, padded messages of RSA (crypto/rsa), and
// what soft keys and cgo hold during a call.
//
// # What a scheme does not protect
//
// An attacker who records an exchange and later obtains the key pair or the pre-shared
// key can decrypt it. A pair made for one exchange is destroyed with it, and is the
// default for that reason. Anyone who decrypts the first exchange of a ladder can decrypt
// all that follow.
package keyx
