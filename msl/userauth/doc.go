// Package userauth holds the user authentication schemes, one per file.
//
//	EMAIL_PASSWORD   an e-mail address and a password
//	USER_ID_TOKEN    a user ID token of an earlier session of the same entity
//
// An application's own scheme is any msl.UserScheme with a name of its own; the
// example shows one for bearer tokens.
//
// A password is in the memory of the process while it is checked.
package userauth
