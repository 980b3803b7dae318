// Package keyx holds the key exchange schemes, one per file.
//
//	ASYMMETRIC_WRAPPED, mechanism RSA   session keys wrapped under the
//	                                    requester's RSA key, which may be made
//	                                    for one exchange
//	SYMMETRIC_WRAPPED, key id PSK       session keys wrapped under a pre-shared
//	                                    wrapping key
//
// In both the session keys are made in a key store and leave it wrapped alone:
// neither side's process sees them.
//
// What a scheme does not protect: who records an exchange and gets the key pair
// or the pre-shared key later opens it; a pair made for one exchange is
// destroyed with it, and is the default for that reason.
package keyx
