// Package usermsg has texts, each in several languages, that a server sends with an MSL
// error to the users of its peers. The language is chosen from those in the header of the
// message, in the user's order of preference, by the distances of languages in the
// Unicode CLDR: a text in pt-PT serves a reader of pt-BR. RFC 4647, section 3.4, calls
// this a lookup.
//
// Set a [Catalog] as Messages of an [msl.Server]. An application whose texts are
// elsewhere implements [msl.UserMessages] itself.
//
// The texts are sent to anyone who receives the error, protected by the server's entity
// scheme, in most cases only by a signature.
package usermsg
