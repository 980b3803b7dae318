// Package proof defines the messages between a device with a TPM and an authority, and
// the checks of them that need nothing else: no TPM, no record, no key. Packages
// tpm/identity and tpm/enroll are the two sides; package enroll describes the exchange.
//
//   - Messages: [Parse] and [Encode], [Begin], [Challenge], [Proof] and [Result].
//   - Public areas: [ParsePublic], and what a [Public] must be for each use.
//   - Evidence: [Begin.Open] and [Proof.Open] check everything that anyone can
//     check at any time, [CheckCertify] and [CheckQuote] one attestation.
//
// It keeps no state, so it does not know whether a challenge is new, or whether a
// secret is right. A signature by a key does not prove where the key is, unless the AK
// has certified the key.
package proof
