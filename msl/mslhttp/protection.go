package mslhttp

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Protection is what every message must have before the application receives it. The
// zero value requires nothing.
type Protection struct {
	Encrypted     bool
	Authenticated bool // integrity-protected
	NonReplayable bool
}

// Demand returns a handler that passes a message to next only if it has that protection
// and can be answered. The sender of any other message gets an error that makes it repeat
// the message with a key exchange: [msl.ErrResponseRequiresEncryption],
// [msl.ErrResponseRequiresIntegrityProtection], [msl.ErrIncompleteNonReplayableMessage]
// or the one that [msl.ResponseWriter.Answerable] returns.
func (p Protection) Demand(next msl.Handler) msl.Handler {
	return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		switch {
		case p.Encrypted && !m.Encrypted:
			return msl.ErrResponseRequiresEncryption
		case p.Authenticated && !m.Authenticated:
			return msl.ErrResponseRequiresIntegrityProtection
		case p.NonReplayable && !m.NonReplayable:
			return msl.ErrIncompleteNonReplayableMessage
		}
		if err := w.Answerable(); err != nil {
			return err // the sender repeats the message, with a key exchange
		}
		return next(ctx, w, m)
	}
}
