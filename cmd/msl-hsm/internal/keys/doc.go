// Package keys has what servers and clients are put together from: key stores by their
// URIs, secrets by their sources, pre-shared keys and certificates in files, identities,
// key exchanges, and the authority of devices with TPMs.
//
// Which function do I want? [Open] for the key store of a configuration, [Make] for one
// that may have to be made, [OpenDevice] for a TPM with the identity of this machine.
package keys
