// Package statuspage shows an operator how a server is doing: a page without external
// parts, which repeatedly fetches one JSON document, the [Overview]. It has no button
// that changes anything.
//
// The page itself is the same for everyone; the document is for those who know a token.
// The token is in the fragment of the page's URL, which browsers never send (RFC 3986,
// section 3.5), and the script puts it into a header: no other site can therefore make a
// browser send it.
package statuspage
