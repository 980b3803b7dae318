// Package entityauth holds the entity authentication schemes, one per file.
//
// Each scheme serves both directions: with our own identity filled in it speaks
// for us, with a directory or trusted roots it judges peers.
//
//	PSK   a pre-shared key set: encrypts and authenticates
//	RSA   a registered RSA public key: authenticates
//	X509  an RSA or EC certificate under a trusted root: authenticates
//	NONE  a name, believed: neither
//
// What a scheme does not protect: PSK keys of a peer are in the key store of
// this process while they are in use; NONE proves nothing at all.
package entityauth
