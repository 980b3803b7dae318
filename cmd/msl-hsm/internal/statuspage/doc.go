// Package statuspage shows an operator how a server is doing: a page without any part from
// elsewhere, which asks for one JSON document, the [Overview], again and again. It has no
// button that changes anything.
//
// The page itself is the same for everybody; the document is for those who know a token.
// That is in the fragment of the page's URL, which browsers never send (RFC 3986, section
// 3.5), and the script puts it into a header: so no other site can have a browser send it.
package statuspage
