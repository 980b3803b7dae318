// Package admin reaches the state of a server: in its files or, while a server has
// them open, in that server.
//
// A running server takes requests over HTTP on a Unix socket beside its state file.
// Whoever may use the socket may use the file: both are for the same owner alone. An
// error travels as a code and a text, and is restored on the other side, so that errors.Is
// works there.
//
// Which function do I want? [OpenRegistry] for who may talk to the server, [OpenKeeper]
// for the state as a whole, [OpenEnrollments] for devices with a TPM, [Backup] for a
// copy of it all; [Service.Listen] in a server.
package admin
