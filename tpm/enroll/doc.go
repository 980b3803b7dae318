// Package enroll gives a device an identity that cannot leave its TPM 2.0, and
// lets an authority verify that before it admits the device.
//
// It is both sides of an exchange of four messages, without a transport: a [Device]
// calls a function with a request and gets an answer, and an [Authority] is given a
// request and returns an answer.
//
// # The keys of a device
//
//   - The EK (endorsement key) is made from a seed that the maker of the TPM
//     left in it, and only decrypts. It often has a certificate of the maker. A
//     device is known by it: see [ID].
//   - The AK (attestation key) is a restricted key: it signs nothing but what
//     the TPM itself has to say.
//   - The LDevIDs (local device identities, IEEE 802.1AR) are ordinary signing
//     keys, with which the device authenticates itself ever after. Clearing the
//     TPM destroys them, and the AK.
//
// # Which function do I want
//
//   - On a device: [OpenDevice], then [Device.Init] and [Device.Enroll], each as
//     often as you like; [Device.Credentials] for the identity. [Device.Renew]
//     before the certificates expire, [Device.Status] for people.
//   - On a server: [OpenFile] for the records, [NewCA] once, [NewAuthority], and
//     [Authority.Handle] for every message.
//   - For operators: [Authority.List], [Authority.Approve], [Authority.Reject],
//     [Authority.RevokeDevice] and its sisters, [Authority.Merge] for a TPM that
//     was replaced, [Authority.CRL] for those who check certificates.
//   - For auditors: [Verifier.Verify], and [VerifyQuote] for the state of a
//     platform.
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
// # What an enrolment proves
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
//   - The messages are signed but not secret. They name the device, so send
//     them encrypted. The device believes the name and certificates that it
//     gets: send them to an authority that authenticates itself.
//   - The commands go to the TPM in clear: somebody on its bus learns the secret
//     of a challenge, which is of no use without the AK.
//   - Records are neither encrypted nor authenticated. Anyone who can write them
//     can lift revocations.
//   - With GODEBUG=fips140=only the standard library refuses the cipher mode of
//     credentials (AES-CFB), and an authority cannot work.
package enroll
