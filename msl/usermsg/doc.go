// Package usermsg has texts that a server sends to the users of its peers with an MSL
// error, each in several languages. Which of them a user gets is found by the languages
// in the header of the message, as the user prefers them, by the distances of languages
// in the Unicode CLDR: what is written in pt-PT serves a reader of pt-BR. RFC 4647,
// section 3.4, calls it a lookup.
//
// Set a [Catalog] as Messages of an [msl.Server]. An application that has its texts
// elsewhere implements [msl.UserMessages] itself.
//
// The texts are sent to anybody who is told of the error, and as the server's entity
// scheme protects them, which most often is by a signature alone.
package usermsg
