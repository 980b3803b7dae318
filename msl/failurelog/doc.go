// Package failurelog carries crypto failure log messages: what a client reports to its
// server when its HSM or TPM does not answer, a key is missing, a token no longer
// opens, or something does not decrypt (MSL wiki, "Application Security
// Requirements").
//
// In that state no message that needs cryptography can carry the report. It is therefore
// sent in the clear: without encryption, integrity protection, replay protection, tokens
// and users, from an entity whose identity is claimed but not proven (NONE or
// NONE_SUFFIXED). The answer has the same properties and only acknowledges. Making and
// accepting such a message uses no key store, token or stored key, and sets no clock.
//
// # Which function do I want
//
//   - In a client, to report automatically: [Start], once, and [Reporter.Observe] for
//     each error of msl.Client.Do or from opening a key store.
//   - In a server, the endpoint: a [Handler] on a [Log].
//   - To read what was reported: [Read].
//   - To know what would be reported about an error: [Classify].
//
// # What is in a report
//
// Anyone on the path can read a report, so it must contain nothing confidential and
// name no user. The types ensure that: an [Incident] has fields only for numbers and
// for words of fixed lists. An error's text is only searched for the names of PKCS #11
// and TPM functions and results; labels, file names, PINs, addresses and data are never
// copied. The only free text is the claimed identity, which is in every MSL message.
//
// The data of the message is a JSON object:
//
//	format    1
//	version   of the software, optional: see CheckVersion
//	lost      failures dropped for lack of room, optional
//	skipped   damaged lines of the spool, optional
//	failures  1 to 32 objects of
//	    kind        device, key, token or data
//	    provider    pkcs11, tpm or soft, optional
//	    operation   a function of PKCS #11 or a command of a TPM, optional
//	    result      a CKR_ or TPM_RC_ name, optional
//	    cause       see Causes, optional
//	    code        of MSL, optional
//	    peer        true if the peer sent that code, optional
//	    keyversion  of the key, optional
//	    count       how often
//	    first       RFC 3339, to the second
//	    last        RFC 3339, to the second
//
// A server drops members that are not listed here, and replaces unknown words with
// "other", so that devices may be newer than servers.
//
// # What it does not protect
//
// Anyone can report anything as anyone, forge an acknowledgment, or keep a report from
// arriving. A report is a hint for an operator: nothing should happen to an entity
// because of one. Rate, size and rotation limit the cost of a flood. In each file of the
// log one source can fill a quarter, one entity at one source a sixteenth, and all
// sources together half; further reports are acknowledged but not kept. Reports therefore
// never fill a file before it is old, and a flood, from however many sources, never
// displaces older records. It can keep later reports out; to make room for those, an
// eighth of the file is released gradually.
//
// A report can arrive twice, if the client ends after the answer and before it updates
// its spool.
package failurelog
