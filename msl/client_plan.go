package msl

// The messages of a request follow from three things: its purpose, which never changes;
// the demands of the error answers so far; and the tokens held. A plan is made from them
// for each message.

// A purpose says what a request sends and whether it expects an answer.
type purpose int

const (
	twoWay      purpose = iota // data, and its answer is read
	oneWay                     // data, and no answer is expected
	loneHeader                 // only a header, which may ask for tokens
	quietHeader                // only a header, which asks for nothing
	pushed                     // nothing: the message that is read does not answer one
)

// Demands are what the error answers so far ask of the next message.
type demands struct {
	bare      bool // use no tokens
	renew     bool // ask for new tokens
	keysFirst bool // get them before the data is sent
}

// after adds the demands of an error answer to a message with plan p. newest says that
// the client still holds the tokens of that message.
func (d demands) after(response ResponseCode, p plan, newest bool) demands {
	r := recoveries[response]
	d.bare = r.bare
	if r.renew {
		d.renew = r.bare || newest
	}
	// A peer that asks for key requests although it received some does not accept data in
	// the same message.
	d.keysFirst = response == KeyXRequired && p.keys
	return d
}

// A plan says what a message carries.
type plan struct {
	content content
	keys    bool // with key requests
}

// A content is what follows a header.
type content int

const (
	theData   content = iota // of the request
	noData                   // the header is a handshake: the data needs another message
	noPayload                // the header is all there is
)

// decide makes the plan of the next message. Its tokens are picked, and its header has
// the given protection.
func (a *attempt) decide(protected protection) (p plan, err error) {
	p.keys = a.renewal != nil && (a.client.keysDue(a.tokens.master()) || a.req.givesFirst(a.network))
	if a.purpose == loneHeader || a.purpose == quietHeader {
		p.content = noPayload
		return p, nil
	}
	empty := false
	if p.keys && !a.req.Interactive {
		// Peers treat a message with key requests and no data as a handshake of an old
		// stack, so it must be one.
		if empty, err = a.req.empty(); err != nil {
			return p, err
		}
	}
	switch {
	case !a.req.fits(protected), a.req.provesUser(a.user) && !protected.hidesUser(),
		p.keys && (empty || a.demands.keysFirst || a.purpose == oneWay || a.req.Interactive): // a channel may stay silent for long
		p.content = noData
	}
	return p, nil
}

// givesFirst reports whether the peer needs a handshake before a channel.
func (r *Request) givesFirst(n requestNetwork) bool { return r.Interactive && n.lacks() }

// keysDue reports whether a renewable message under mt should bring key requests.
func (c *Client) keysDue(mt *MasterToken) bool {
	now, known := c.serverTime()
	return mt == nil || !known || mt.renewable(now)
}

// provesUser reports whether authentication data has to prove the user, whose token is
// uit or nil.
func (r *Request) provesUser(uit *UserIDToken) bool { return r.User != "" && uit == nil }
