// Package serverside puts an MSL server together from the configuration.
//
// Which function do I want? [Open] for the server with its keys and state, [Application]
// for what answers, [HTTPServer] for both over HTTP, [SecureListener] for TLS below it.
package serverside
