// Package httpform defines the form in which an HTTP request or response is the data of a
// message, so that a program on a device can call a service behind a gateway as if
// nothing were between them. See docs/http-over-msl.md.
//
// The data begins with one line, [RequestLine] or [ResponseLine]: a MIME header field
// with the media type of RFC 9112, section 10.2, and an empty line. It is recognized by
// comparing bytes; data that begins in any other way is not in this form. One HTTP/1.1
// message follows, up to the end of the data.
//
// [EncodeRequest] and [EncodeResponse] write the form, [DecodeRequest] and
// [DecodeResponse] read it; bodies are streams. Reading is stricter than in net/http: a
// message that two parsers could interpret differently is an error. Message bodies are
// framed by Content-Length or by chunks, so truncation is detected, and the last byte is
// not returned before the data is known to end there.
//
// # What it does not protect
//
// The form does not say who sent it. Its users decide which methods, paths and header
// fields may pass; [EndToEnd] removes only the fields that no proxy forwards.
package httpform
