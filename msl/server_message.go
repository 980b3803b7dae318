package msl

import "errors"

// message returns the message as the application sees it.
func (in *incoming) message() *Message {
	m := &Message{
		Identity: CanonicalName(in.sender.Identity), Scheme: in.scheme, User: CanonicalName(in.user),
		Encrypted: in.sender.Encrypted, Authenticated: in.sender.Authenticated,
		NonReplayable: in.nonReplayableID != absent,
		MessageID:     in.messageID, ServiceTokens: in.serviceTokens, Body: in.body,
	}
	if in.timestamp != absent {
		m.Timestamp = seconds(in.timestamp)
	}
	if in.capabilities != nil {
		m.Languages = in.capabilities.Languages
	}
	return m
}

// applicationError gives an application's rejection its code.
func (in *incoming) applicationError(err error) error {
	switch {
	case errors.Is(err, ErrRejectEntity) && in.token != nil:
		err = fail(ErrMasterTokenRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectEntity):
		err = fail(ErrEntityRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectUser) && in.userIDToken != nil:
		err = fail(ErrUserIDTokenRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectUser):
		err = fail(ErrUserRejectedByApp, "handle message", err)
	}
	return withID(err, in.messageID)
}
