// Package msl speaks the Message Security Layer protocol with keys that stay
// where package keystore keeps them.
//
// MSL (https://github.com/Netflix/msl/wiki) puts authentication, encryption,
// integrity, key exchange and replay protection into each message, so that any
// transport will do. Tokens issued by a server carry the state of a session:
// the master token names an entity and holds its session keys, a user ID token
// names a user of that entity, service tokens hold what an application likes.
//
// # Which function do I want
//
//   - To answer messages: a [Server], and its Serve method. Over HTTP: package
//     msl/mslhttp.
//   - To send messages: a [Client], and its Do method.
//   - To use a connection of any kind, for many messages: Serve it with ServeStream,
//     and send with a [StreamTransport].
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
// The reference stacks write the raw session keys into a master token, so an
// issuer opens it with the keys in its memory. A holder never looks inside, and
// so an [Issuer] here writes its own form, which the process that issues and
// opens it cannot turn into key bytes either. The plaintext of the encrypted
// sessiondata is an object of
//
//	sealed               1, the version of this form
//	identity             the holder's identity
//	issuerdata           an object of the issuer's own, optional
//	encryptionalgorithm  AES
//	signaturealgorithm   HmacSHA256
//	sealedencryptionkey  the session encryption key, sealed by the store
//	sealedsignaturekey   the session signature key, sealed by the store
//
// A sealed key is bound to the serial number and the sequence number of its
// token, to the identity and to its use; it names the version of its
// key-encryption key itself ([keystore.Sealed]). A reference issuer finds no
// encryptionkey in it and refuses the token cleanly.
//
// # Custody of session keys
//
// Where the bytes of session keys may be is a mode, [Custody], of a [Server] and
// of a [Client]. Sealed, the default, keeps them in the key store, and treats a
// key exchange whose form would bring them into the process as one that is not
// configured: it is not offered, and a request for it is answered as such unless
// another exchange does. Imported lets such exchanges be, with the bytes in locked
// memory for the one exchange. Shared writes and reads master tokens in the form
// of the reference stacks, with the raw keys in them. Each [Responder] and [Offerer]
// declares what it exposes; package msl/keyx makes a table of that.
//
// # What it does not protect
//
// Payloads and headers are in the process's memory in clear. The scheme NONE does not
// authenticate the sender. An error message is authenticated as its sender's entity,
// but its message id is all that binds it to the request it answers.
package msl
