// Package balanced is a key store over several tokens that hold the same keys, such as
// a partition that was cloned to a second HSM. Each operation goes to the token with the
// shortest queue; that of a much slower token counts as longer. A token that fails or hangs is left out, and its operations under way are
// done on another, until it has been proven again.
//
// That the tokens hold the same keys is proven, and not believed: before a token is used,
// each key there computes something that only the same key computes alike. A version of a
// key that is not on all of them is not used.
//
// A provisioned key is used on any token. A session key lives on one: when it is sealed it
// can be unsealed on another, and is, if its token fails or has more to do than others. A
// key that was not sealed yet is lost with its token: [keystore.ErrLost] or
// [keystore.ErrUnavailable].
package balanced
