package msl

// UserMessages has texts for users, sent with errors as usermsg. Package usermsg
// implements it for texts in several languages.
type UserMessages interface {
	// UserMessage returns the text for the user of a peer that is sent err, or "" for
	// none. The peer is sent the [*AppError] that errors.As finds in err, if the
	// application returned one, else the [Code]. The rest of err is not for a peer.
	//
	// languages are those that the peer's message asks for, best first; none if the
	// message could not be read. They may come from an unauthenticated peer. UserMessage
	// must not block.
	UserMessage(err error, languages []string) string
}

// withUserMessage looks up a text for the user, unless the application supplied one.
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

// languages are those that the sender prefers for its user, if known.
func (in *incoming) languages() []string {
	if in.capabilities == nil {
		return nil
	}
	return in.capabilities.Languages
}
