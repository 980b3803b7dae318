// Package auditlog writes and verifies a log of who did what, in which no line can be
// removed, changed or moved undetected.
//
// A log is one or more files of lines. Each line is a JSON object: a number that counts up,
// a time, what happened, and at its end the chain value
//
//	SHA-256(chain value of the previous line || this line up to ,"chain":)
//
// in base64url. Before the first line it is 32 zero bytes. The first line of each file
// has the event "file", the name of the log, which is random, and the chain value before
// it, so that a file can be verified on its own and the chain continues across files.
//
// A line with the event "mark" ends a batch. Once it has been signed, a line with the
// event "checkpoint" follows, possibly after others: the signature is over the SHA-256 of
//
//	"msl-hsm audit checkpoint 1" || 0 || name of the log || 0 || number of the mark, 8 bytes ||
//	chain value of the mark || id of the key
//
// and is RSASSA-PKCS1-v1_5 (RFC 8017) or ECDSA in ASN.1 (RFC 3279), depending on the key.
// It covers every line up to the mark. Lines after the last checkpoint are only chained:
// anyone who can write the file can change them.
//
// [Open] starts or continues a log; [Verify] finds what is wrong with one.
package auditlog
