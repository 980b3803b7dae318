// Package msl speaks the Message Security Layer protocol with keys that stay
// where package keystore keeps them.
//
// MSL (https://github.com/Netflix/msl/wiki) puts authentication, encryption, integrity,
// key exchange and replay protection into each message, so that any transport will do.
// Tokens issued by a server carry the state of a session: the master token names an
// entity and holds its session keys, a user ID token names a user of that entity, service
// tokens hold whatever an application likes.
//
// # Which function do I want
//
//   - To answer messages: a [Server], and its Serve method. Over HTTP: package
//     msl/mslhttp.
//   - To send messages: a [Client], and its Do method.
//   - To use any connection for many messages: Serve it with ServeStream, and send with a
//     [StreamTransport].
//   - Where both sides issue tokens, on one connection: a [Conn], and its Request
//     and Serve methods.
//   - To set this side's identity: a [LocalEntity] of package msl/entityauth.
//   - To set which peers are accepted: an [EntityScheme] of package msl/entityauth, a
//     [UserScheme] of msl/userauth.
//   - To agree on session keys: a [Responder] of package msl/keyx for a server, an
//     [Offerer] of it for a client.
//   - To issue and open tokens: an [Issuer].
//   - To choose where the bytes of session keys may exist: a [Custody].
//   - To keep what must survive a restart: package msl/state/bolt, and with a
//     counter in hardware msl/state/anchor.
//   - To report failing cryptography: package msl/failurelog; failing TLS:
//     package msl/tlsalert.
//   - To look into a message: an [Inspector].
//
// # Sealed master tokens
//
// The reference stacks write the raw session keys into a master token, so the process
// that opens a token has the keys in its memory. A token's holder never looks inside. An
// [Issuer] here therefore writes its own form, which even the process that issues and
// opens it cannot turn into key bytes. The plaintext of the encrypted sessiondata is an
// object of
//
//	sealed               1, the version of this form
//	identity             the holder's identity
//	issuerdata           the issuer's own object, optional
//	encryptionalgorithm  AES
//	signaturealgorithm   HmacSHA256
//	sealedencryptionkey  the session encryption key, sealed by the store
//	sealedsignaturekey   the session signature key, sealed by the store
//
// A sealed key is bound to the serial and sequence numbers of its token, to the identity
// and to its use; it names the version of its key-encryption key ([keystore.Sealed]). A
// reference issuer finds no encryptionkey in the token and refuses it cleanly.
//
// # Custody of session keys
//
// The [Custody] of a [Server] or [Client] says where the bytes of session keys may exist.
// Sealed, the default, keeps them in the key store, and treats a key exchange that would
// bring them into the process as not configured: it is not offered, and a request for it
// is refused unless another exchange can answer it. Imported allows such exchanges, with
// the bytes in locked memory during the exchange. Shared writes and reads master tokens
// in the form of the reference stacks, which contain the raw keys. Each [Responder] and
// [Offerer] declares what it exposes; package msl/keyx lists this in a table.
//
// # What it does not protect
//
// Payloads and headers exist in the clear in the memory of the process. The scheme NONE
// does not authenticate the sender. An error message is authenticated as coming from its
// sender's entity, but only its message id binds it to the request that it answers.
package msl
