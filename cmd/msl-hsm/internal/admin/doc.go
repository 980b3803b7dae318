// Package admin accesses the state of a server: in its files or, while a server has
// them open, through that server.
//
// A running server takes requests over HTTP on a Unix socket beside its state file.
// Anyone who can use the socket can use the file: both are accessible only to the same
// owner. An error is sent as a code and a text and restored on the other side, so that
// errors.Is works there.
//
// Which function do I want? [Keys.Registry] for the entities and users that may talk to
// the server, [Keys.Keeper] for the state as a whole, [Keys.Enrollments] for devices with
// a TPM, [BackupState] for a copy of everything; [Service.Listen] in a server.
package admin
