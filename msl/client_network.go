package msl

import "context"

// A requestNetwork is what the network decides of the messages of a request: one of
// trusted services ([trustedNetwork]) or of peers ([peerAttempt]).
type requestNetwork interface {
	// takes reports whether the peer takes the next message under a token held.
	takes(held *MasterToken) bool
	// answers reports whether the peer waits for the next message.
	answers() bool
	// lacks reports whether the peer needs tokens of ours before a channel can be
	// opened to it.
	lacks() bool
	// show adds to a header what we issue for the peer.
	show(ctx context.Context, h *header) error
	// release lets go of what was issued.
	release()
}

// A trustedNetwork is one of trusted services, where a client issues nothing.
type trustedNetwork struct{}

func (trustedNetwork) takes(*MasterToken) bool             { return true }
func (trustedNetwork) answers() bool                       { return false }
func (trustedNetwork) lacks() bool                         { return false }
func (trustedNetwork) show(context.Context, *header) error { return nil }
func (trustedNetwork) release()                            {}
