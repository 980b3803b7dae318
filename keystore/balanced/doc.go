// Package balanced is a key store over several tokens that hold the same keys, such as a
// partition that was cloned to a second HSM. Each operation goes to the token with the
// shortest queue; that of a much slower token counts as longer. A token that fails or hangs
// is not used until it has been proven again, and its operations in progress are repeated
// on another one.
//
// The tokens must prove that they hold the same keys: before a token is used, each of its
// keys computes a value that only the same key computes. A version of a key that is not on
// all of them is not used.
//
// A provisioned key is used on any token. A session key lives on one: once it is sealed it
// can be unsealed on another one, which happens if its token fails or has more to do than
// others. A key that was not sealed yet is lost with its token: [keystore.ErrLost] or
// [keystore.ErrUnavailable].
package balanced
