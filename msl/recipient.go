package msl

import (
	"errors"
	"fmt"
)

// A key request is in the clear if its sender's scheme does not encrypt, and nothing in it
// says who made it. Another entity can put it into its own message and pass on the answer:
// both ends then share keys, and the issuer mistakes one entity for the other (Diffie, van
// Oorschot and Wiener, 1992, "unknown key share"). The header of an answer that delivers
// keys therefore names the entity they were made for, in the member "recipient", which is
// signed or encrypted with the header. Readers that do not know the member ignore it.

// recipient returns the entity that an answer's keys are made for, or "" if the request
// hid it and this side's own scheme would reveal it.
func (i *issuance) recipient() string {
	if i.in.scheme == "MT_PROTECTED" && !i.server.Local.Encrypts() {
		return ""
	}
	return i.in.sender.Identity
}

// checkRecipient refuses keys made for another entity. An answer without a recipient, or
// to an entity that has no name yet, proves nothing either way.
func (in *incoming) checkRecipient(us string) error {
	if in.recipient == "" || us == "" || sameName(in.recipient, us) {
		return nil
	}
	return fail(ErrMessageRecipientMismatch, "key response data", fmt.Errorf("made for %q: somebody passed this side's key request on as their own", in.recipient))
}

// checkSender refuses a message under a master token that this side wrote itself: the keys of a
// session are the same in both directions, so that somebody could send it back.
func (in *incoming) checkSender(us string) error {
	if in.token == nil || in.header.sender == "" || !sameName(in.header.sender, us) {
		return nil
	}
	return fail(ErrUnexpectedLocalMessageSender, "header", errors.New("somebody sent a message of this side back to it"))
}

// checkMirrored refuses a message by which this side would authenticate itself as its own peer: its
// pre-shared keys are the same in both directions, and its directory may have its public key.
// The two sides of a connection have different names.
func (in *incoming) checkMirrored(us string) error {
	if in.token != nil || !in.sender.Authenticated || !sameName(in.sender.Identity, us) {
		return nil
	}
	return fail(ErrUnexpectedLocalMessageSender, "header", errors.New("the other side has the name of this side, or somebody sent its own message back to it"))
}
