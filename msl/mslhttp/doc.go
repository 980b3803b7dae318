// Package mslhttp carries MSL messages over HTTP: a request in the body of a POST,
// and its answer in the body of the response.
//
// A [Handler] is the server side, a [Transport] the client side. An MSL answer, even an
// error message, always has status 200: the reference client treats 400 and above as a
// transport failure and never reads the body. Other statuses mean that there is no MSL
// answer:
//
//   - 503, with Retry-After and without a body, if no answer can be made
//   - 500, which does not invite a retry, if that happens after the application acted
//   - 400 if the request was cut off
//   - 413 if the request is too long
//
// A connection is always closed if a request on it was not read to its end, since the
// following bytes are not the next request. The media type of a request is ignored. A
// body is about 2.4 times the size of its data if the data does not compress: allow for
// that when you limit it.
//
// The application may be an ordinary HTTP service: a [Gateway] forwards the messages to
// it, and names their senders in headers. An [HTTPGateway] does that with whole HTTP
// requests that are the data of messages. A [Protection] rejects messages that lack the
// protection you require.
//
// # Streams and channels
//
// Nothing here waits for the end of a message or holds a whole one. A handler may answer
// while the request is still arriving, and the client reads while it sends: with
// [msl.Request.Interactive], a single HTTP exchange becomes a channel. HTTP/2 supports
// this. HTTP/1.1 permits it (RFC 9112, section 9.3) and net/http does it on both sides,
// but most other clients write the whole request before they read. Over HTTP/1.1 an
// answer therefore waits in memory until the request has been read ([msl.Limits].Held),
// unless the header "Msl-Duplex: full" says that the client reads while it sends, as a
// [Transport] does.
//
// A proxy that reads a whole request before forwarding anything, or that holds back an
// answer, leaves both ends waiting forever; one that limits how long a request takes can
// break a channel, too. If there may be such a proxy, use a WebSocket: a
// [WebSocketHandler] and a [WebSocketDialer] make connections for
// [msl.Server.ServeStream] and [msl.StreamTransport], or for a [msl.Conn]. Set Idle in a
// Handler that serves channels: it limits how long an answer that has begun may stall,
// not how long it takes.
//
// # Limits
//
// [msl.Limits] limits the memory of a message, and [Connections] the number of
// connections: use it on every listener that strangers can reach. For HTTP headers set
// ReadHeaderTimeout, IdleTimeout and MaxHeaderBytes of [http.Server], since a header line
// of a few bytes takes a hundred in memory.
//
// # TLS
//
// A [TLSServer] and a [TLSClient] provide TLS; their private keys may be in a token. They
// speak HTTP/1.1 and optionally HTTP/2, and follow the rules about alerts that crypto/tls
// leaves to its users; package msl/tlsalert explains the alerts. [FailureClasses] shows
// how failures of TLS, of devices and of messages are kept apart.
//
// # What it does not protect
//
// HTTP itself protects nothing here, and need not: MSL keeps a message confidential even
// without TLS. TLS hides who talks to whom.
package mslhttp
