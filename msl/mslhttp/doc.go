// Package mslhttp carries MSL messages over HTTP: one request and one answer
// each, in the bodies of a POST and its response.
//
// A [Handler] is the server's side, a [Transport] the client's. An MSL answer,
// an error message included, is always status 200: a reference client takes
// anything from 400 on for a failure of the transport and never reads it. Where
// no MSL answer can be made the status is 503, with Retry-After and without a
// body; where that is so after the application acted it is 500, which asks for no
// other try; to a request that was cut off it is 400, and to one that is longer than
// it may be 413. A connection on which a request was not read to its end is closed, on
// every path: what comes next on it is not the next request. The media type of a request
// means nothing. A body is about 2.4 times the size of the data in it where that
// does not compress: keep that in mind when you bound it.
//
// The application may be an ordinary HTTP service: a [Gateway] passes the messages on to
// it, and says in headers who sent them. A [Protection] keeps from it the messages that
// lack the protection that you demand.
//
// # Streams and channels
//
// Nothing here waits for the end of a message or holds a whole one. A handler may
// answer while the request is still coming, and the client reads while it sends:
// with [msl.Request.Interactive] that is a channel, in one HTTP exchange. HTTP/2
// provides for it. HTTP/1.1 permits it (RFC 9112, section 9.3) and net/http does
// it on both sides, but most other clients write all of a request before they
// read. So over HTTP/1.1 an answer waits in memory until the request was read
// ([msl.Limits].Held), unless the header "Msl-Duplex: full" says that the client
// reads meanwhile, as a [Transport] does.
//
// A proxy on the way may read all of a request before it passes anything on, or
// hold an answer back, and then both ends wait forever; so may one that bounds how
// long a request takes. Where such a proxy may be, use a WebSocket: a
// [WebSocketHandler] and a [WebSocketDialer] make connections for
// [msl.Server.ServeStream] and [msl.StreamTransport], or for a [msl.Conn]. Give a
// Handler that serves channels an Idle time: it bounds how long nothing moves in an
// answer that has begun, and not how long the answer takes.
//
// # Bounds
//
// What a message occupies is bounded by [msl.Limits], and how many connections there
// are by [Connections], which belongs on every listener that strangers reach. Bounds on
// the headers of HTTP are those of [http.Server]: set ReadHeaderTimeout, IdleTimeout and
// MaxHeaderBytes, since a header line of a few bytes takes a hundred in memory.
//
// # TLS
//
// TLS below comes from a [TLSServer] and a [TLSClient], whose private keys may be in
// a token. They speak HTTP/1.1, and keep the rules about alerts that crypto/tls leaves
// to its users; package msl/tlsalert explains the alerts. [FailureClasses] tells how
// the failures of TLS, of devices and of messages are kept apart.
//
// # What it does not protect
//
// HTTP itself protects nothing here, and need not: what is confidential in a
// message is confidential without TLS. TLS hides who talks to whom.
package mslhttp
