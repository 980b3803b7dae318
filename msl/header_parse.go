package msl

import (
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// headerRules are the settings of this side that the reader of a header needs.
type headerRules struct {
	token         *MasterToken // of the header, or nil
	encrypted     bool         // the sender encrypts headers
	tokens        int          // at most, of service tokens and of key requests
	serviceTokens ServiceTokenKeys
	users         []UserScheme
	exchanges     []Responder              // the ones this side answers
	delivers      func(scheme string) bool // whether a key response may have it
	peerToPeer    bool
	peerServices  ServiceTokenKeys // for this side's own service tokens, issued by a peer
	search        *versionSearch   // for the versions of both
	openUser      func(wire.Object) (*UserIDToken, error)
}

// parseHeader reads the inside of a header in the protocol's order. Errors carry the
// message id once it is known.
func parseHeader(o wire.Object, rules headerRules) (header, error) {
	f := wire.FieldsOf(o)
	h := header{messageID: absent, timestamp: absent, nonReplayableID: absent}
	id := f.Int("messageid")
	if err := malformed(f, "header"); err != nil {
		return h, err
	}
	if !inRange(id) {
		return h, fail(ErrMessageIDOutOfRange, "header", nil)
	}
	h.messageID = id
	h.sender, _ = o.String("sender") // which the reference stack does not read
	err := h.parseRest(f, rules)
	return h, withID(err, h.messageID)
}

// refused reports whether the message is refused because of its key requests.
func (h *header) refused() bool { return h.unanswerable != nil && h.userAuth == nil }

func (h *header) parseRest(f *wire.Fields, rules headerRules) error {
	h.timestamp = f.OptionalInt("timestamp", absent)
	if err := malformed(f, "header"); err != nil {
		return err
	}
	if err := h.parseTokens(f, rules); err != nil {
		return err
	}
	h.nonReplayableID = f.OptionalInt("nonreplayableid", absent)
	if f.Has("nonreplayableid") && !inRange(h.nonReplayableID) {
		return fail(ErrNonReplayableIDOutOfRange, "header", nil)
	}
	h.renewable = f.Bool("renewable")
	h.handshake = f.OptionalBool("handshake")
	if err := h.parseCapabilities(f); err != nil {
		return err
	}
	if err := h.parseKeyRequests(f, rules); err != nil || !rules.peerToPeer || h.unanswerable != nil {
		return err // an unanswerable message is refused for that, whatever tokens it shows
	}
	return h.peer.parse(f, h.keyResponse, rules)
}

func (h *header) parseCapabilities(f *wire.Fields) (err error) {
	if !f.Has("capabilities") {
		return malformed(f, "header")
	}
	o := f.Object("capabilities")
	if err := malformed(f, "header"); err != nil {
		return err
	}
	h.capabilities, err = parseCapabilities(o)
	return err
}

// parseTokens reads the tokens bound to a master token: that of the key response if there
// is one, else that of the header.
func (h *header) parseTokens(f *wire.Fields, rules headerRules) (err error) {
	mt := rules.token
	if f.Has("keyresponsedata") {
		if h.keyResponse, err = parseKeyResponse(f.Object("keyresponsedata"), f, rules); err != nil {
			return err
		}
		if h.recipient = f.OptionalString("recipient"); f.Err() != nil {
			return malformed(f, "header")
		}
		if !rules.peerToPeer { // then it is a token for this side, not for the sender
			mt = h.keyResponse.token
		}
	}
	if f.Has("useridtoken") {
		o := f.Object("useridtoken")
		if err := malformed(f, "user id token"); err != nil {
			return err
		}
		if h.userIDToken, err = rules.openUser(o); err != nil {
			return err
		}
		if err := h.userIDToken.boundTo(mt); err != nil {
			return err
		}
	}
	if err := h.parseUserAuth(f, rules); err != nil {
		return err
	}
	return h.parseServiceTokens(f, rules, mt)
}

func parseKeyResponse(o wire.Object, f *wire.Fields, rules headerRules) (*keyResponse, error) {
	if err := malformed(f, "key response data"); err != nil {
		return nil, err
	}
	inner := wire.FieldsOf(o)
	token := inner.Object("mastertoken")
	if err := malformed(inner, "key response data"); err != nil {
		return nil, err
	}
	mt, err := parseMasterToken(token)
	if err != nil {
		return nil, err
	}
	data, err := parseSchemeData(o, "keydata", "key response data", func(scheme string) error {
		if rules.delivers(scheme) {
			return nil
		}
		return missingScheme(scheme, keyxSchemes, ErrUnidentifiedKeyXScheme, ErrKeyXFactoryNotFound)
	})
	return &keyResponse{token: mt, schemeData: data}, err
}

func (h *header) parseUserAuth(f *wire.Fields, rules headerRules) error {
	if !f.Has("userauthdata") {
		return nil
	}
	o := f.Object("userauthdata")
	if err := malformed(f, "user authentication data"); err != nil {
		return err
	}
	if !rules.encrypted {
		return fail(ErrUnencryptedMessageWithUserAuthData, "header", nil)
	}
	var scheme UserScheme
	find := findScheme(&scheme, rules.users, userSchemes, ErrUnidentifiedUserAuthScheme, ErrUserAuthFactoryNotFound)
	data, err := parseSchemeData(o, "authdata", "user authentication data", find)
	if err != nil {
		return err
	}
	h.userAuth = &data
	return scheme.Check(data.data)
}

func (h *header) parseServiceTokens(f *wire.Fields, rules headerRules, mt *MasterToken) error {
	if !f.Has("servicetokens") {
		return nil
	}
	list := f.Objects("servicetokens", rules.tokens)
	if err := malformed(f, "service tokens"); err != nil {
		return err
	}
	for _, o := range list {
		t, err := parseServiceToken(o, rules.serviceTokens, rules.search, mt, h.userIDToken)
		if t != nil {
			h.serviceTokens = append(h.serviceTokens, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putServiceToken adds a token, replacing an earlier one.
func putServiceToken(list []*ServiceToken, t *ServiceToken) []*ServiceToken {
	for i, old := range list {
		if old.sameAs(t) {
			list[i] = t
			return list
		}
	}
	return append(list, t)
}

// parseKeyRequests keeps the requests that can be answered. If none can be, the message
// is unanswerable, with the error of the first one. If it has a user, that error is
// returned only after the user was authenticated.
func (h *header) parseKeyRequests(f *wire.Fields, rules headerRules) error {
	if !f.Has("keyrequestdata") {
		return nil
	}
	list := f.Objects("keyrequestdata", rules.tokens)
	if err := malformed(f, "key request data"); err != nil {
		return err
	}
	for _, o := range list {
		data, unanswerable, err := parseKeyRequest(o, rules.exchanges)
		switch {
		case err != nil:
			return err
		case unanswerable == nil && slices.ContainsFunc(h.keyRequests, data.equal): // a set, as in the reference stacks
		case unanswerable == nil:
			h.keyRequests = append(h.keyRequests, data)
		case h.unanswerable == nil:
			h.unanswerable = unanswerable
		}
	}
	if len(h.keyRequests) > 0 {
		h.unanswerable = nil
	}
	return nil
}

// parseKeyRequest returns a request, or why it cannot be answered.
func parseKeyRequest(o wire.Object, exchanges []Responder) (data schemeData, unanswerable, err error) {
	data, err = parseSchemeData(o, "keydata", "key request data", func(scheme string) error {
		_, unanswerable = pick(exchanges, scheme, keyxSchemes, ErrUnidentifiedKeyXScheme, ErrKeyXFactoryNotFound)
		return unanswerable
	})
	switch {
	case unanswerable != nil:
		return data, unanswerable, nil
	case err != nil:
		return data, nil, err
	}
	return data, checkKeyRequest(exchanges, data), nil
}

// checkKeyRequest asks each configured form of the scheme. The one with the request's
// mechanism reports what is wrong with the request.
func checkKeyRequest(exchanges []Responder, data schemeData) (refusal error) {
	for _, x := range exchanges {
		if x.Scheme() != data.scheme {
			continue
		}
		err := x.Check(data.data)
		if err == nil {
			return nil
		}
		if refusal == nil || errors.Is(refusal, ErrUnsupportedKeyXMechanism) {
			refusal = err
		}
	}
	return refusal
}
