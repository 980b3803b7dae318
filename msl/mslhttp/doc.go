// Package mslhttp carries MSL messages over HTTP: one request and one answer
// each, in the bodies of a POST and its response.
//
// A [Handler] is the server's side, a [Transport] the client's. An MSL answer,
// an error message included, is always status 200: a reference client takes
// anything from 400 on for a failure of the transport and never reads it. Where
// no MSL answer can be made the status is 503, with Retry-After and without a
// body. The media type of a request means nothing.
//
// HTTP itself protects nothing here, and need not: what is confidential in a
// message is confidential without TLS. TLS hides who talks to whom.
package mslhttp
