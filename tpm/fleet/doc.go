// Package fleet lets devices with a TPM 2.0 talk MSL: it enrolls them at an MSL
// server, registers them as entities there, and wraps keys for their TPMs. It is
// the bridge between MSL and TPM, and the only package under tpm that imports msl.
//
// Package tpm/enroll decides which devices are admitted and keeps their records, and
// package tpm/identity is the device's side of that. Neither knows how messages are
// transported or what an entity is. This package does.
//
// # Which function do I want
//
// On the server:
//
//   - [NewAuthority] enrolls devices and registers each of them in the server's
//     state as an entity: by its identity key, and by the name in its certificates
//     ([CertificateIdentity]).
//   - [NewEndpoint] is the HTTP handler to which devices send their enrollment.
//   - [Authority.CountSince] for msl.Server.CountSince, always: a name outlives the
//     TPM that proves it, and the old TPM still has tokens that name it.
//   - [X509] instead of entityauth.X509 if the CA issues certificates.
//   - [Verifier] for the key exchange TPM_IMPORT (keyx.TPMResponder.Verifier).
//
// On the device:
//
//   - [NewClient] and [Exchange] carry the messages of identity.Device.Enroll to the
//     endpoint.
//   - [Device] makes the keys of the key exchange TPM_IMPORT (keyx.TPMOfferer.Device).
//
// To give an enrolled device pre-shared keys that only its TPM can use, besides its
// identity key (the identity is [PSKIdentity]):
//
//  1. The device runs [Device.ProveStorageKey] with a nonce from the server's
//     operator, and sends the [StorageProof].
//  2. The server reads it with [ParseStorageProof], checks it with
//     [CertifiedKey.Check] and wraps the keys with [WrapPSK].
//  3. The device reads the answer with [ParseWrappedPSK] and imports the keys into its
//     TPM with [Device.ImportPSK].
//
// # What it does not protect
//
//   - Anyone can send to the endpoint. It limits the memory and the rate of messages for
//     all devices together, so a flood keeps others from enrolling, but does not affect
//     the server beside it.
//   - The endpoint forgets everything between messages, and its tokens are valid only
//     there, and at endpoints with the same key. A recorded message can be sent again; the challenge in it counts once.
//   - A [WrappedPSK] does not say who made it, and its maker knows the keys: get it
//     from the server unchanged. The server has them in memory while it wraps them.
//   - Master tokens have times in seconds, so a token that was issued in the second in
//     which a name passed to another device is still accepted.
//   - If records are in a file, [Authority.CountSince] knows only those operator
//     decisions that were made through the same Authority: let a running server carry
//     them out.
//   - This package does not protect anything that tpm/enroll and tpm/identity do not
//     protect.
package fleet
