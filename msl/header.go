package msl

import (
	"context"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// absent stands for an id or a timestamp that a header does not have.
const absent = -1

// A header is the inside of a message header, parsed from verified bytes or to
// be sent.
type header struct {
	sender          string // sent with a master token, never read
	recipient       string // of a key response, or empty
	messageID       int64
	timestamp       int64 // or absent
	nonReplayableID int64 // or absent
	renewable       bool
	handshake       bool
	capabilities    *Capabilities
	keyRequests     []schemeData
	unanswerable    error // why none of the key requests that were offered will do
	keyResponse     *keyResponse
	userAuth        *schemeData
	userIDToken     *UserIDToken
	serviceTokens   []*ServiceToken
	peer            peerTokens // peer-to-peer networks alone
}

// A keyResponse delivers a master token and what makes its session keys.
type keyResponse struct {
	token *MasterToken
	schemeData
}

// An envelope is the outside of a header: who says it is from whom, and nothing
// of that verified.
type envelope struct {
	entity    *schemeData
	scheme    EntityScheme // that entity names
	token     wire.Object  // if entity is nil
	data      []byte
	signature []byte
	isError   bool
}

// parseEnvelope makes the checks of a header that come before its sender is
// known. token is shown a master token in its place among them.
func parseEnvelope(o wire.Object, entities []EntityScheme, token func(wire.Object) error) (envelope, error) {
	const op = "header"
	hasEntity, hasToken := o.Has("entityauthdata"), o.Has("mastertoken")
	if hasEntity && hasToken {
		return envelope{}, fail(ErrMSLParseError, "header has entity authentication data and a master token", nil)
	}
	f, env := wire.FieldsOf(o), envelope{}
	if hasEntity {
		entity, err := parseSchemeData(f.Object("entityauthdata"), "authdata", "entity authentication data")
		if err != nil {
			return env, err
		}
		env.entity = &entity
		env.scheme, err = pick(entities, entity.scheme, entitySchemes, ErrUnidentifiedEntityAuthScheme, ErrEntityAuthFactoryNotFound)
		if err != nil {
			return env, err
		}
	}
	if hasToken {
		env.token = f.Object("mastertoken")
		if f.Err() == nil {
			if err := token(env.token); err != nil {
				return env, err
			}
		}
	}
	env.signature = f.Bytes("signature")
	if env.isError = !o.Has("headerdata"); env.isError {
		env.data = f.Bytes("errordata")
	} else {
		env.data = f.Bytes("headerdata")
	}
	if err := malformed(f, op); err != nil {
		return env, err
	}
	if !hasEntity && (!hasToken || env.isError) {
		return env, fail(ErrMessageEntityNotFound, op, nil)
	}
	return env, nil
}

// open verifies, then decrypts: the only way to a header's inside.
func (env envelope) open(s Sender) (wire.Object, error) {
	const op = "header"
	if len(env.data) == 0 {
		return wire.Object{}, fail(ErrHeaderDataMissing, op, nil)
	}
	switch err := s.Opener.Verify(env.data, env.signature); {
	case err == errSignature && env.isError:
		return wire.Object{}, fail(ErrMessageVerificationFailed, op, nil)
	case err == errSignature && env.entity == nil:
		return wire.Object{}, fail(ErrMessageMasterTokenBasedVerificationFailed, op, nil)
	case err == errSignature:
		return wire.Object{}, fail(ErrMessageEntityDataBasedVerificationFailed, op, nil)
	case err != nil:
		return wire.Object{}, err
	}
	plaintext, err := s.Opener.Decrypt(env.data)
	if err != nil {
		return wire.Object{}, err
	}
	o, err := wire.Parse(plaintext, wire.Limits{})
	if err != nil {
		return wire.Object{}, fail(ErrMSLParseError, op, err)
	}
	return o, nil
}

// headerRules is what a reader of headers needs to know of its side.
type headerRules struct {
	token         *MasterToken // of the header, or nil
	encrypted     bool         // the sender encrypts headers
	tokens        int          // most service tokens, and most key requests
	serviceTokens ServiceTokenKeys
	users         []UserScheme
	exchanges     []Responder              // that we answer
	delivers      func(scheme string) bool // whether a key response may have it
	peerToPeer    bool
	peerServices  ServiceTokenKeys // of our own service tokens, that a peer issued
	openUser      func(wire.Object) (*UserIDToken, error)
}

// parseHeader reads the inside of a header in the protocol's order. Errors carry
// the message id from the moment it is known.
func parseHeader(o wire.Object, rules headerRules) (header, error) {
	f := wire.FieldsOf(o)
	h := header{messageID: f.Int("messageid"), timestamp: absent, nonReplayableID: absent}
	if err := malformed(f, "header"); err != nil {
		return h, err
	}
	if !inRange(h.messageID) {
		return h, fail(ErrMessageIDOutOfRange, "header", nil)
	}
	return h, withID(h.parseRest(f, rules), h.messageID)
}

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
	if err := h.parseKeyRequests(f, rules); err != nil || !rules.peerToPeer {
		return err
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

// parseTokens reads what is bound to a master token: the one of the key
// response where there is one, else the header's.
func (h *header) parseTokens(f *wire.Fields, rules headerRules) (err error) {
	mt := rules.token
	if f.Has("keyresponsedata") {
		if h.keyResponse, err = parseKeyResponse(f.Object("keyresponsedata"), f, rules); err != nil {
			return err
		}
		if h.recipient = f.OptionalString("recipient"); f.Err() != nil {
			return malformed(f, "header")
		}
		if !rules.peerToPeer { // there it is a token for us, not for the sender
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
	data, err := parseSchemeData(o, "keydata", "key response data")
	if err != nil {
		return nil, err
	}
	if !rules.delivers(data.scheme) {
		err = missingScheme(data.scheme, keyxSchemes, ErrUnidentifiedKeyXScheme, ErrKeyXFactoryNotFound)
	}
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
	data, err := parseSchemeData(o, "authdata", "user authentication data")
	if err != nil {
		return err
	}
	scheme, err := pick(rules.users, data.scheme, userSchemes, ErrUnidentifiedUserAuthScheme, ErrUserAuthFactoryNotFound)
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
		t, err := parseServiceToken(o, rules.serviceTokens, mt, h.userIDToken)
		if err != nil {
			return err
		}
		h.serviceTokens = putServiceToken(h.serviceTokens, t)
	}
	return nil
}

// putServiceToken adds a token, in the place of one that it replaces.
func putServiceToken(list []*ServiceToken, t *ServiceToken) []*ServiceToken {
	for i, old := range list {
		if old.sameAs(t) {
			list[i] = t
			return list
		}
	}
	return append(list, t)
}

// parseKeyRequests keeps the requests that we can answer. Where that is none of
// those that were offered, the message is unanswerable, by the error of the
// first; but a user is authenticated before that counts.
func (h *header) parseKeyRequests(f *wire.Fields, rules headerRules) error {
	if !f.Has("keyrequestdata") {
		return nil
	}
	list := f.Objects("keyrequestdata", rules.tokens)
	if err := malformed(f, "key request data"); err != nil {
		return err
	}
	for _, o := range list {
		data, err := parseSchemeData(o, "keydata", "key request data")
		if err != nil {
			return err
		}
		err = checkKeyRequest(rules.exchanges, data)
		if err == nil {
			h.keyRequests = append(h.keyRequests, data)
		} else if h.unanswerable == nil {
			h.unanswerable = err
		}
	}
	if len(h.keyRequests) > 0 {
		h.unanswerable = nil
	}
	return nil
}

func checkKeyRequest(exchanges []Responder, data schemeData) error {
	if _, err := pick(exchanges, data.scheme, keyxSchemes, ErrUnidentifiedKeyXScheme, ErrKeyXFactoryNotFound); err != nil {
		return err
	}
	var err error
	for _, x := range exchanges { // one scheme may be configured in several ways
		if x.Scheme() != data.scheme {
			continue
		}
		if err = x.Check(data.data); err == nil {
			return nil
		}
	}
	return err
}

// encode writes the inside of a header.
func (h *header) encode(now time.Time) []byte {
	e := wire.NewEncoder(384)
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
	return e.Encoded()
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

// An identification is how a message of ours says who sends it.
type identification struct {
	token     *MasterToken // or
	scheme    string       // the name of an entity scheme and
	local     Credentials  // of our entity
	protector Protector
}

// localIdentification identifies us by our entity scheme.
func localIdentification(ctx context.Context, s LocalEntity) (identification, error) {
	local, err := s.Credentials(ctx)
	if err != nil {
		return identification{}, err
	}
	return identification{scheme: s.Scheme(), local: local, protector: local.Protector}, nil
}

func (id identification) release() {
	if id.local.Release != nil {
		id.local.Release()
	}
}

// encodeMessage protects the inside of a header and writes it under name,
// headerdata or errordata.
func (id identification) encodeMessage(name string, inside []byte) ([]byte, error) {
	data, err := id.protector.Encrypt(inside)
	if err != nil {
		return nil, err
	}
	signature, err := id.protector.Sign(data)
	if err != nil {
		return nil, err
	}
	who, by := "mastertoken", []byte(nil)
	if id.token != nil {
		by = id.token.Bytes()
	} else {
		who, by = "entityauthdata", schemeData{scheme: id.scheme, data: id.local.AuthData}.encode("authdata")
	}
	e := wire.NewEncoder(128 + len(by) + (len(data)+len(signature))*4/3)
	e.Begin()
	e.Raw(who, by)
	e.Bytes(name, data)
	e.Bytes("signature", signature)
	e.End()
	return e.Encoded(), nil
}
