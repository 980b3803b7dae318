// Package enroll is an authority that enrolls devices with a TPM 2.0. It verifies that
// the keys of a device are in its TPM and cannot leave it, asks a policy or a person,
// issues certificates, and keeps records.
//
// The device's side is package tpm/identity, which also describes the keys of a device:
// the EK of the TPM's manufacturer, an AK that signs for the TPM, and LDevIDs, which are
// the identity of the device once it is enrolled. The caller transports the messages.
//
// # Which function do I want
//
//   - On a server: [OpenFile] for the records, or package tpm/enroll/etcd for records
//     shared by several servers, [NewCA] once, [NewAuthority], and [Authority.Handle] for
//     every message.
//   - For operators: [Authority.List], [Authority.Approve], [Authority.Reject],
//     [Authority.RevokeDevice], [Authority.RevokeKey] and
//     [Authority.RevokeCertificate], and [Authority.Merge] for a TPM that was
//     replaced.
//   - To check certificates: [Authority.CRL] and [Authority.Revoked].
//   - To check another key of an enrolled device: [Authority.Certified].
//   - For auditors: [Verifier.Verify], and [VerifyQuote] for the state of a
//     platform. They need neither the authority nor the device.
//
// # The exchange
//
//  1. The device sends its EK with certificates, and the public areas of its AK
//     and LDevIDs.
//  2. The authority makes a secret and encrypts it for that EK and that AK
//     (TPM2_MakeCredential, TPM 2.0 Library part 1, section 24), with a nonce.
//  3. The TPM decrypts it only if it has both keys. The AK certifies each LDevID, and
//     each LDevID signs a certificate request. The AK signs a digest of both messages and
//     of the secret, which binds everything together: see below. If the device's
//     manufacturer certified an initial attestation key (IAK), that key certifies the AK
//     in the same way.
//  4. The authority checks that, applies its [Policy], issues certificates, registers the
//     device, and only then records it as enrolled.
//
// Messages are JSON in a canonical form, and are refused if re-encoding them does not
// give the same bytes. They are at most [MaxMessage] bytes long, without an event log 64
// KiB. The qualifying data of the attestations is
//
//	SHA-256(use ‖ SHA-256(begin) ‖ SHA-256(challenge) ‖ secret)
//
// where begin and challenge are the first two messages, use is a text that differs for
// certification, quotes, renewals and the manufacturer's key, and secret has 32 bytes.
// For the manufacturer's key, that is hashed once more with its certificates.
//
// An authority stores nothing between the messages: a challenge carries a MAC, and its
// secret is also a MAC. A record has the time of the newest challenge used, so each can
// be used once, and none after a newer one.
//
// An enrolled device may attest to the state in which it was started, with two separate
// messages: it names its EK hash, gets a challenge, and its AK quotes PCRs with
//
//	SHA-256("msl-hsm tpm enrolment 1: attest" ‖ EK hash ‖ challenge)
//
// See [Attested].
//
// # What an enrollment proves
//
// The AK and the LDevIDs are in the TPM that has the EK, were made there, and cannot
// leave it. If the EK certificate was accepted, the EK is in a TPM of its manufacturer.
// If the certificate of an IAK was accepted, the AK is in the TPM of that device. All of
// this was true after the challenge was made.
//
// # What it does not prove or protect
//
//   - An EK without a certificate may be in software. It waits for a person, who must
//     know the EK hash from another source, such as the factory.
//   - It does not prove which machine the TPM is in, or who uses it. Anyone who controls
//     the machine can use the identity there. Quotes show how the machine was started,
//     if the expected values are known.
//   - A TPM may have several EKs, each of which counts as a device: see [Policy].
//   - Revocation lists of TPM manufacturers are not checked.
//   - The evidence does not show that the secret of a challenge could only be known with
//     the EK: for that, third parties must trust the authority.
//   - The messages are signed but not secret. They identify the device, so send them
//     encrypted, and authenticate the authority to the device, which trusts the name and
//     the certificates that it receives.
//   - Records in a file are not encrypted, and are authenticated only with a [Guard].
//     Otherwise anyone who can write them can lift revocations. Package tpm/enroll/etcd
//     authenticates those in etcd.
//   - With GODEBUG=fips140=only the standard library refuses the cipher mode of
//     credentials (AES-CFB), and an authority answers with errors.ErrUnsupported.
package enroll
