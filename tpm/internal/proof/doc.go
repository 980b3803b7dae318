// Package proof has the forms of what a device with a TPM and an authority tell
// each other, and the checks of it that need nothing else: no TPM, no record, no
// key. Packages tpm/identity and tpm/enroll are the two sides; package enroll
// describes the exchange.
//
//   - Messages: [Parse] and [Encode], [Begin], [Challenge], [Proof] and [Result].
//   - Public areas: [ParsePublic], and what a [Public] must be for each use.
//   - Evidence: [Begin.Open] and [Proof.Open] check all that can be checked by
//     anyone at any time, [CheckCertify] and [CheckQuote] one attestation.
//
// It keeps no state, so it cannot tell whether a challenge is new or a secret the
// right one. What a key has signed proves nothing about where the key is, until
// the AK has certified it.
package proof
