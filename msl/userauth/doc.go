// Package userauth holds the user authentication schemes, one per file.
//
//	EMAIL_PASSWORD   an e-mail address and a password
//	USER_ID_TOKEN    a user ID token of an earlier session of the same entity
//
// An application's own scheme is any msl.UserScheme with a distinct name; the example
// shows one for bearer tokens.
//
// A password is in the memory of the process while it is checked. A server then
// overwrites it in the decrypted message, and overwrites every copy it made itself. Two
// copies are out of its reach: package argon2 leaves one in the state of a hash, on the
// heap until the garbage collector reuses that memory; and if a message is refused before
// its password is checked, the decrypted header stays in memory just as long. A client
// has copies in the message that it encrypts.
package userauth
