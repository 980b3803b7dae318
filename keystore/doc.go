// Package keystore defines keys as handles: the key itself stays where it was made.
//
// A [Store] is a place where keys live: a PKCS #11 token (package hsm), a TPM 2.0 (package tpm)
// or, for development, the memory of the process (package keystore/soft). A [Key] names one key
// in one store. The interface that a key implements says what it can do: [Cipher], [MAC],
// [Wrapper], [Unwrapper], [Revealer], or the standard library's [crypto.Signer] and
// [crypto.Decrypter]. An [Algorithm] is one purpose, so that a device can allow nothing else.
//
// # Which function do I want
//
//   - A session key that lives until it is closed: [Store.Generate].
//   - A key an operator made with a set-up command: [Find], or [Store.Lookup] for
//     every version of it. Its label: [Role.Label].
//   - To give a session key to a peer: [Wrapper.Wrap] or [PeerWrapper.WrapFor].
//   - To take a session key from a peer: [Unwrapper.Unwrap].
//   - To use a format that carries keys as plain bytes: [DataWrapper], [Revealer] and
//     [crypto.Decrypter], which let this process see them.
//   - To keep a session key outside the device so that only this store can use
//     it: [Store.Seal] and [Store.Unseal].
//
// # What it does not protect
//
// Nothing here exports a key. Code that must see key bytes takes an [Importer], a
// [Revealer] or a [crypto.Decrypter], so that the exposure shows in its signature.
// Keys that reveal or decrypt are made only for that. Plaintext that a [Cipher] returns is in the memory of the process.
package keystore
