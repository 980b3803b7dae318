package msl

import "context"

// A requestNetwork has the parts of a request that depend on the kind of network:
// trusted services ([trustedNetwork]) or peers ([peerAttempt]).
type requestNetwork interface {
	// takes reports whether the peer accepts the next message under the token held.
	takes(held *holding) bool
	// answers reports whether the peer waits for the next message.
	answers() bool
	// lacks reports whether the peer needs tokens of this side before a channel can be
	// opened to it.
	lacks() bool
	// show adds to a header the tokens that this side issues for the peer.
	show(ctx context.Context, h *header) error
	// release releases the keys of the tokens that were issued.
	release()
}

// A trustedNetwork is a network of trusted services, where a client issues nothing.
type trustedNetwork struct{}

func (trustedNetwork) takes(*holding) bool                 { return true }
func (trustedNetwork) answers() bool                       { return false }
func (trustedNetwork) lacks() bool                         { return false }
func (trustedNetwork) show(context.Context, *header) error { return nil }
func (trustedNetwork) release()                            {}
