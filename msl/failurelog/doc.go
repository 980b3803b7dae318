// Package failurelog carries crypto failure log messages: what a client tells its
// server when its HSM or TPM does not answer, a key is missing, a token does not open
// any more, or something does not decrypt (MSL wiki, "Application Security
// Requirements").
//
// Just then nothing that needs cryptography can carry the news. So such a message is
// in the clear: without encryption, integrity protection, protection from replay,
// tokens and users, from an entity that is claimed and not proven (NONE or
// NONE_SUFFIXED). The answer has the same properties and only acknowledges. To make
// and to take such a message no key store, token or stored key is touched, and nobody
// sets a clock by it.
//
// # Which function do I want
//
//   - In a client, to report by itself: [Start], once, and [Reporter.Observe] for each
//     error of msl.Client.Do or of opening a key store.
//   - In a server, the endpoint: a [Handler] on a [Log].
//   - To read what was reported: [Read].
//   - To know what would be told of an error: [Classify].
//
// # What is in a report
//
// Anybody on the way can read a report, so it must hold nothing that is confidential
// or that names a user. That does not rest on care: an [Incident] has no place for
// anything but numbers and words of fixed lists. An error's text is only searched for
// the names of PKCS #11 and TPM functions and results; labels, file names, PINs,
// addresses and data have nowhere to go. The one text of free choice is the claimed
// identity, which is in every message of MSL.
//
// The data of the message is a JSON object:
//
//	format    1
//	version   of the software, optional: see CheckVersion
//	lost      failures that there was no room for, optional
//	skipped   damaged lines of the spool, optional
//	failures  1 to 32 objects of
//	    kind        device, key, token or data
//	    provider    pkcs11, tpm or soft, optional
//	    operation   a function of PKCS #11 or a command of a TPM, optional
//	    result      a CKR_ or TPM_RC_ name, optional
//	    cause       see Causes, optional
//	    code        of MSL, optional
//	    peer        true if the peer answered that code, optional
//	    keyversion  of the key, optional
//	    count       how often
//	    first       RFC 3339, to the second
//	    last        RFC 3339, to the second
//
// A server drops a member that is not here, and writes "other" for a word that it does
// not know, so that devices may be newer than servers.
//
// # What it does not protect
//
// Anybody can report anything as anyone, make an acknowledgement up, or keep a report
// from arriving. A report is a hint for an operator: nothing should happen to an entity
// because of one. Rate, size and rotation bound what a flood costs. Of each file of the
// log one source has a quarter, one entity at one source a sixteenth, and all sources
// together have half: what is more is acknowledged and not kept. So reports never fill
// a file before it is old, and a flood, of however many sources, pushes nothing out
// that was kept. It can keep later reports out; an eighth of the file comes free little
// by little for those.
//
// A report can arrive twice, if the client ends between the answer and the writing of
// its spool.
package failurelog
