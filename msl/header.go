package msl

import (
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// absent stands for an id or a timestamp missing from a header.
const absent = -1

// A header is the inside of a message header, parsed from verified bytes or to
// be sent.
type header struct {
	sender          string // sent with a master token, or empty
	recipient       string // of a key response, or empty
	messageID       int64
	timestamp       int64 // or absent
	nonReplayableID int64 // or absent
	renewable       bool
	handshake       bool
	capabilities    *Capabilities
	keyRequests     []schemeData
	unanswerable    error // why none of the offered key requests is usable
	keyResponse     *keyResponse
	userAuth        *schemeData
	userIDToken     *UserIDToken
	serviceTokens   []*ServiceToken
	peer            peerTokens // only in peer-to-peer networks
}

// A keyResponse delivers a master token and the data to derive its session keys from.
type keyResponse struct {
	token *MasterToken
	schemeData
}

func (h *header) write(e *wire.Encoder, now time.Time) {
	e.Begin()
	if h.sender != "" {
		e.String("sender", h.sender)
	}
	if h.recipient != "" {
		e.String("recipient", h.recipient)
	}
	e.Int("messageid", h.messageID)
	e.Int("timestamp", now.Unix())
	e.Bool("nonreplayable", h.nonReplayableID != absent)
	if h.nonReplayableID != absent {
		e.Int("nonreplayableid", h.nonReplayableID)
	}
	e.Bool("renewable", h.renewable)
	e.Bool("handshake", h.handshake)
	if h.capabilities != nil {
		h.capabilities.encode(e)
	}
	h.encodeKeys(e)
	if h.userAuth != nil {
		e.Raw("userauthdata", h.userAuth.encode("authdata"))
	}
	if h.userIDToken != nil {
		e.Raw("useridtoken", h.userIDToken.Bytes())
	}
	if len(h.serviceTokens) > 0 {
		e.BeginArray("servicetokens")
		for _, t := range h.serviceTokens {
			e.RawElement(t.sealed.raw)
		}
		e.EndArray()
	}
	h.peer.encode(e)
	e.End()
}

func (h *header) encodeKeys(e *wire.Encoder) {
	if len(h.keyRequests) > 0 {
		e.BeginArray("keyrequestdata")
		for _, r := range h.keyRequests {
			e.RawElement(r.encode("keydata"))
		}
		e.EndArray()
	}
	if h.keyResponse != nil {
		e.BeginMember("keyresponsedata")
		e.Raw("mastertoken", h.keyResponse.token.Bytes())
		e.String("scheme", h.keyResponse.scheme)
		e.Raw("keydata", h.keyResponse.data)
		e.End()
	}
}
