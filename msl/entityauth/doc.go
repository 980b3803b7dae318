// Package entityauth holds the entity authentication schemes, one per file.
//
// A scheme, such as [RSA], judges peers by a directory or trusted roots: it is a
// [msl.EntityScheme]. An entity, such as [RSAEntity], is this side, with its identity
// and its key: it is a [msl.LocalEntity].
//
//	PSK            a pre-shared key set: encrypts and authenticates
//	PSK_PROFILE    the same, one key set for several identities
//	MGK            keys derived from the identity under a group's key: the same
//	RSA            a registered RSA public key: authenticates
//	ECC            a registered EC public key: authenticates
//	X509           an RSA or EC certificate under a trusted root: authenticates
//	NONE           a claimed name: neither
//	NONE_SUFFIXED  the same, with an arbitrary suffix
//	PROVISIONED    no name, one is assigned: neither
//	MT_PROTECTED   any other one, hidden by a master token: counts as neither
//
// The schemes do not protect everything: PSK and MGK keys of a peer are in the key store of this
// process while they are in use, and MGK keys in its memory while they are derived; NONE,
// NONE_SUFFIXED and PROVISIONED prove nothing at all. MGK was never tested with another
// implementation.
package entityauth
