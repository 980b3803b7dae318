// Package agent lets the programs on a device send MSL messages by plain HTTP. A
// [Handler] is an [http.Handler] over an [msl.Client]: the body of each POST is sent as
// a message, and the data of the answer becomes the body of the response. All programs
// share one session and the keys of the device. It is the counterpart of
// mslhttp.Gateway, which is used behind a server.
//
// # Requests
//
// A request is a POST to / without a query. Its headers may be
//
//	Msl-User            send for this user, percent-encoded as by mslhttp.EncodeName
//	Msl-Non-Replayable  true: the server refuses a copy of the message
//	Msl-No-Answer       true: do not wait for an answer; a refusal is not seen
//
// Any other header that begins with Msl- is an error, since it would have no effect.
// Messages are always encrypted and authenticated.
//
// A DELETE with the header Msl-Session: forget forgets the session with all tokens, and
// one with Msl-Session: logout logs out the user of the header Msl-User. The status is
// 204. See [msl.Client.Forget] and [msl.Client.Logout].
//
// If HTTP is set, a request may have any method, path and query, and is sent whole, in
// the form of package httpform. The response then has the status, headers and body from
// the service behind the server. Only a response with the header Msl-Error comes from the
// server ("server") or from the Handler ("agent").
//
// # Responses
//
// A response with an answer has status 200, the header Msl-Message-Id with the number
// of the answer, and Msl-Identity if the server gave its identity. If no answer is
// expected, the status is 202. Bodies are streams in both directions. If an answer is
// cut off, so is the connection.
//
// A status of 400 or above has a JSON object as its body: "error" is the reason, and if
// the server sent an MSL error, "response", "code" and "name" describe it, and
// "message" is for the user. A request whose response has Retry-After is worth another
// try:
//
//	400       an invalid header, or the request body was cut off
//	403       the server refused the entity or the user; the Handler does not know the
//	          user; the request is from a web page or for another host
//	404, 405  a path other than these, or a query; another method
//	408, 413  the body did not arrive in time, or is longer than the Handler or the
//	          server permits
//	500       keys that are no longer usable, a wrong PIN, a failure of the device
//	502       the server cannot be reached (Retry-After); its answer is not a message, or
//	          cannot be trusted, or came when the HSM or TPM failed; it refused the message
//	503       the HSM or TPM is busy or unavailable, too many requests are under way, the
//	          server asks to come back later, or the session was ended in the meantime
//	          (all with Retry-After)
//	504       no answer in time (Retry-After)
//	505       an answer of more than 1 MiB in HTTP/1.0, in which its end cannot be
//	          distinguished from a failure
//
// After 502 and 504 the server may have acted on the message.
//
// # Which function do I want
//
// To serve programs, put a [Handler] into an [http.Server] that listens where only they
// can connect: on a Unix socket to which only their user may connect, or at least on the
// loopback interface. Limit what a connection may cost before its request is read, with
// ReadHeaderTimeout, IdleTimeout and MaxHeaderBytes. Set DisableGeneralOptionsHandler, or
// OPTIONS * gets status 200 from the http.Server itself. Let the client's transport keep
// as many idle connections as there are concurrent requests (MaxIdleConnsPerHost of
// [http.Transport]). To tell a program what it can do about an error, set Explain. To log
// requests, set Report, and wrap the client's state with [WatchState].
//
// # What it does not protect
//
// Anyone who can connect to the listener can send with the identity of the device, and
// for all its users. Requests from web pages are refused, as are requests for another
// host unless they come over a Unix socket; that is not access control between programs.
package agent
