package msl

// UserMessages has texts for users, which are sent with errors as usermsg. Package
// usermsg has an implementation for texts in several languages.
type UserMessages interface {
	// UserMessage returns the text for the user of a peer that is told of err, or an
	// empty text for none. What errors.As finds in err is what the peer is told of:
	// an [*AppError], if the application returned one, and else a [Code]. The rest
	// of err is not for a peer.
	//
	// languages are those that the peer's message asks for, best first. None are
	// known of a message that could not be read. They come from a peer that may have
	// proved nothing. UserMessage must not block.
	UserMessage(err error, languages []string) string
}

// withUserMessage looks up a text for the user, unless the application gave one.
func (a errorAnswer) withUserMessage(texts UserMessages, in *incoming, cause error) errorAnswer {
	if texts == nil || a.user != "" {
		return a
	}
	if a.code >= 0 {
		cause = &Error{Code: a.code, MessageID: in.messageID, Err: cause}
	}
	a.user = cut(texts.UserMessage(cause, in.languages()), maxErrorText)
	return a
}

// languages are those that the sender prefers for its user, as far as they are known.
func (in *incoming) languages() []string {
	if in.capabilities == nil {
		return nil
	}
	return in.capabilities.Languages
}
