// Package isolated puts a key store into a process of its own, so that a crash, a hang
// or a leak of a vendor's library does not take the server with it.
//
// [Open] starts the child and returns a [Store] with the interfaces of package
// keystore. The child calls [Serve], which opens the real store there. A call that takes
// too long is given up, and a child that ended or hangs is replaced. Keys that were
// provisioned or sealed are found and unsealed again in the new one. A session key that
// was not sealed yet is lost with its process: [keystore.ErrLost].
//
// The memory of the parent holds what it encrypts, and what it imports or reveals. It
// never holds a key that the store generated, unwrapped or unsealed.
//
// # On the wire
//
// The processes are connected by pairs of Unix sockets. One of them, for control, is
// inherited by the child. Each call that is under way has another one for itself, a lane,
// so that a slow call holds up no other, an answer needs no number, and no goroutine has
// to hand it on. The parent makes a lane when it needs one, and passes its other end
// over the control socket. A message on a lane is its length in four bytes, big-endian,
// and the message: one byte for the operation or the result, then numbers (unsigned
// varints) and byte strings (length, bytes).
package isolated
