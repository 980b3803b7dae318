// Package wire is the outermost layer of MSL: the bytes of a message as a
// sequence of JSON objects, the Base64 inside them, and the compression of
// application data.
//
// Use [Decoder] for a message stream, [Parse] for an encoded object that was
// carried as a byte string inside another one, [Encoder] to write either, and
// [Compress] and [Decompress] for payloads and service token data.
//
// The parser accepts RFC 8259 objects and nothing else. It rejects what MSL forbids or
// leaves to the implementation: null, duplicate member names, invalid UTF-8, and bytes
// before or after the object. encoding/json is not used because it accepts all of
// these, and matches names without regard to case.
//
// Members are looked up one by one, and unknown members are ignored. Nothing is
// canonicalized, because MSL signatures cover the transmitted bytes: verify and forward
// the bytes of [Object.Raw], never a new encoding of the same members.
//
// Everything parsed here is unauthenticated until the caller has verified a
// signature over it. Errors name members and offsets but never quote values,
// which may be secret.
package wire
