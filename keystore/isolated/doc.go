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
// The child inherits a Unix socket for control. On it the parent passes lanes, and the child
// tells by itself, in lines of JSON, what it logs and measures. Each call that is under way
// has a lane for itself, so that a slow call holds up no other, an answer needs no number,
// and no goroutine has to hand it on. A call to a device that computes on the same processor
// keeps its turn until the answer, as a function would, and has a lane whose thread in the child
// stays on the processor that the caller is on. Of others, one at a time waits for its answer
// in its thread; several wait in the poller of the runtime, without a thread for each.
//
// A lane is two pipes, there and back, and a pair of Unix sockets for what a pipe has no room
// for. With it come two bytes, the number of its processor and one, or zero. A message is its
// length in four bytes, big-endian, and the message: one byte for the operation or the result,
// then numbers (unsigned varints) and byte strings (length, bytes). A length of 0xffffffff on
// a pipe means that the message is on the socket.
//
// Two changes of process take longer than most operations of a module in software, so what a
// message needs is one call; see [keystore.Joint].
package isolated
