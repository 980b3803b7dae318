// Package serverside builds an MSL server from the configuration.
//
// Which function do I want? [Open] for the server with its keys and state,
// [Application] for the handler of its messages, [HTTPServer] for both over HTTP,
// [Service.Secured] for TLS below it.
package serverside
