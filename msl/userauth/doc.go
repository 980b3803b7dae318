// Package userauth holds the user authentication schemes, one per file.
//
//	EMAIL_PASSWORD   an e-mail address and a password
//	USER_ID_TOKEN    a user ID token of an earlier session of the same entity
//
// An application's own scheme is any msl.UserScheme with a name of its own; the
// example shows one for bearer tokens.
//
// A password is in the memory of the process while it is checked. A server then
// overwrites it where it stands in the decrypted message, and every copy that it
// made itself. What remains is beyond it: package argon2 leaves one in the state of
// a hash, which is on the heap until the garbage collector uses that place again;
// and of a message that is refused before its password is looked at, the decrypted
// header stays as long. A client has copies in the message that it encrypts.
package userauth
