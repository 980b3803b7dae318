package msl

import "fmt"

// A holder of service tokens sends all of them that match its other tokens with every
// message, and the answer returns them. If a peer holds one token too many, every later
// message is refused; such a token must be neither given nor accepted.

// carries returns an error if a message from a peer with the same limits cannot carry
// those service tokens. Each of their bytes takes 16/9 in a header: its text is encrypted
// as Base64, and the envelope is sent as Base64 again.
func (l *Limits) carries(list []*ServiceToken) error {
	size := 0
	for _, t := range list {
		size += len(t.sealed.raw)
	}
	switch {
	case len(list) > l.Tokens:
		return fmt.Errorf("there would be %d service tokens, and Limits.Tokens permits a message %d: delete some first", len(list), l.Tokens)
	case size > l.Header/16*9:
		return fmt.Errorf("the service tokens would have %d bytes, which Limits.Header (%d) has no room for: delete some first", size, l.Header)
	}
	return nil
}

// sends returns an error if a message for a user cannot carry the service tokens held,
// unless those held before were already too much.
func (t *tokens) sends(l *Limits, user string, before *tokens) error {
	list, old := t.servicesFor(t.user(user)), before.servicesFor(before.user(user))
	err := l.carries(list)
	if err != nil && len(list) <= len(old) && l.carries(old) != nil {
		return nil // it was so before, and is no worse
	}
	return err
}
