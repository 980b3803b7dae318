// Package httpform is the form in which an HTTP request or response is the data of a
// message, so that a program on a device can call a service behind a gateway as if
// nothing were between them. docs/http-over-msl.md defines it.
//
// The data begins with one line, [RequestLine] or [ResponseLine]: a header field of MIME
// with the media type of RFC 9112, section 10.2, and an empty line. It is recognized by
// comparison, byte for byte, and data that begins in any other way is not in this form.
// One HTTP/1.1 message follows, up to the end of the data.
//
// [EncodeRequest] and [EncodeResponse] write the form, [DecodeRequest] and
// [DecodeResponse] read it; bodies are streams. What is read is checked more strictly
// than net/http does it: a message that two parsers could take for different ones is an
// error. Message bodies are framed by Content-Length or by chunks, so a form that was
// cut off is seen to be so, and its last byte is not given out before the data is known
// to end there.
//
// # What it does not protect
//
// The form says nothing about who sent it. Which methods, paths and header fields may
// pass is for its users to decide; [EndToEnd] removes only those fields that no proxy
// passes on.
package httpform
