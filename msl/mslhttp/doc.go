// Package mslhttp carries MSL messages over HTTP: one request and one answer
// each, in the bodies of a POST and its response.
//
// A [Handler] is the server's side, a [Transport] the client's. An MSL answer,
// an error message included, is always status 200: a reference client takes
// anything from 400 on for a failure of the transport and never reads it. Where
// no MSL answer can be made the status is 503, with Retry-After and without a
// body; to a request that was cut off it is 400. The media type of a request
// means nothing. A body is about 2.4 times the size of the data in it where that
// does not compress: keep that in mind when you bound it.
//
// HTTP itself protects nothing here, and need not: what is confidential in a
// message is confidential without TLS. TLS hides who talks to whom.
package mslhttp
