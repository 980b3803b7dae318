package msl

import "fmt"

// A key request is in clear where the scheme of its sender does not encrypt, and
// nothing in it says whose it is. Another entity can put it into a message of its
// own, and pass the answer on: both ends then share keys, and the issuer takes the
// one for the other (Diffie, van Oorschot and Wiener, 1992, "unknown key share").
// So the header of an answer that delivers keys names who they were made for, in
// the member "recipient", and is signed or encrypted with it. Readers that do not
// know the member ignore it.

// recipient is who the keys of an answer are made for. It is not told where the
// request hid it and our own scheme shows all.
func (i *issuance) recipient() string {
	if i.in.scheme == "MT_PROTECTED" && !i.server.Local.Encrypts() {
		return ""
	}
	return i.in.sender.Identity
}

// checkRecipient refuses keys that were made for somebody else. An answer that
// names nobody, or that comes to an entity which has no name yet, is no evidence.
func (in *incoming) checkRecipient(us string) error {
	if in.recipient == "" || us == "" || in.recipient == us {
		return nil
	}
	return fail(ErrMessageRecipientMismatch, "key response data", fmt.Errorf("made for %q: somebody passed our key request on as its own", in.recipient))
}
