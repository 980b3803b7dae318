// Package keys provides the building blocks of servers and clients: key stores by their
// URIs, secrets by their sources, pre-shared keys and certificates in files,
// identities, key exchanges, and the authority of devices with TPMs.
//
// Which function do I want? [Open] for the configured key store, [Make] for one that
// may have to be created, [OpenDevice] for a TPM with the identity of this machine, which
// [InitDevice] makes.
package keys
