// Package enroll is the authority that takes devices with a TPM 2.0 in. It makes
// sure that the keys of a device are in its TPM and cannot leave it, asks a policy
// or a person, issues certificates, and keeps records.
//
// The device's side is package tpm/identity, which also tells what keys a device
// has: the EK of its maker, an AK that speaks for the TPM, and LDevIDs, its
// identity from then on. The way that messages go is the caller's.
//
// # Which function do I want
//
//   - On a server: [OpenFile] for the records, [NewCA] once, [NewAuthority], and
//     [Authority.Handle] for every message.
//   - For operators: [Authority.List], [Authority.Approve], [Authority.Reject],
//     [Authority.RevokeDevice] and its sisters, [Authority.Merge] for a TPM that
//     was replaced, [Authority.CRL] for those who check certificates.
//   - For a key that an enrolled device has besides its identity:
//     [Authority.Certified].
//   - For auditors: [Verifier.Verify], and [VerifyQuote] for the state of a
//     platform. They need no authority and no device.
//
// # The exchange
//
//  1. The device sends its EK with certificates, and the public areas of its AK
//     and LDevIDs.
//  2. The authority makes a secret and encrypts it for that EK and that AK
//     (TPM2_MakeCredential, TPM 2.0 Library part 1, section 24), with a nonce.
//  3. The TPM decrypts it only if both keys are its own. The AK certifies each
//     LDevID; each LDevID signs a certificate request. What the AK signs over is
//     a digest of both messages and of the secret, so that everything hangs
//     together: see below.
//  4. The authority checks that, asks its [Policy], issues certificates, has the
//     device registered, and only then notes it as enrolled.
//
// Messages are JSON of one form: what does not read back as the same bytes is
// refused. They are at most [MaxMessage] bytes long. The qualifying data of the
// attestations is
//
//	SHA-256(use ‖ SHA-256(begin) ‖ SHA-256(challenge) ‖ secret)
//
// where begin and challenge are the first two messages, use is a text that
// differs for certification, quotes and renewals, and secret has 32 bytes.
//
// An authority keeps nothing between the messages: a challenge carries a MAC,
// and the secret in it is a MAC too. A record keeps the time of the newest
// challenge that was used, so each counts once, and none after a newer one.
//
// # What an enrollment proves
//
// That the AK and the LDevIDs are in the TPM that has the EK, were made there
// and cannot leave it; that the EK is in a TPM of its maker, if its certificate
// was accepted; and that all of that was so when the challenge was made.
//
// # What it does not prove or protect
//
//   - An EK without certificate may be in software. So it waits for a person,
//     who has to know the EK hash from somewhere else, such as the factory.
//   - It does not say which machine the TPM is in, or who uses it. Whoever
//     controls the machine can use the identity there. Quotes tell how it was
//     started, for those who know the values.
//   - A TPM may have several EKs, each a device: see Policy.Kinds.
//   - Revocation lists of the makers of TPMs are not asked.
//   - That the secret of a challenge could only be had with the EK is the word
//     of the authority: evidence shows the rest to anyone.
//   - The messages are signed but not secret. They name the device, so have them
//     sent encrypted, and authenticate the authority to the device, which
//     believes the name and the certificates that it gets.
//   - Records are neither encrypted nor authenticated. Anyone who can write them
//     can lift revocations.
//   - With GODEBUG=fips140=only the standard library refuses the cipher mode of
//     credentials (AES-CFB), and an authority cannot work.
package enroll
