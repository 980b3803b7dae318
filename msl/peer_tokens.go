package msl

import (
	"bytes"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// peerTokens are tokens in a message that its sender issued for its receiver: in a
// peer-to-peer network each side shows the other the tokens it gave.
type peerTokens struct {
	master   *MasterToken
	user     *UserIDToken
	services []*ServiceToken
}

// parse reads the tokens. They are bound to the master token that the message delivers,
// if any, else to the peer's master token.
func (p *peerTokens) parse(f *wire.Fields, delivered *keyResponse, rules headerRules) (err error) {
	if f.Has("peermastertoken") {
		o := f.Object("peermastertoken")
		if err := malformed(f, "peer master token"); err != nil {
			return err
		}
		if p.master, err = parseMasterToken(o); err != nil {
			return err
		}
	}
	mt := p.master
	if delivered != nil {
		mt = delivered.token
	}
	if f.Has("peeruseridtoken") {
		o := f.Object("peeruseridtoken")
		if err := malformed(f, "peer user id token"); err != nil {
			return err
		}
		if p.user, err = parseUserIDToken(o); err != nil {
			return err
		}
		if err := p.user.boundTo(mt); err != nil {
			return err
		}
	}
	if !f.Has("peerservicetokens") {
		return nil
	}
	list := f.Objects("peerservicetokens", rules.tokens)
	if err := malformed(f, "peer service tokens"); err != nil {
		return err
	}
	for _, o := range list {
		t, err := parseServiceToken(o, rules.peerServices, rules.search, mt, p.user)
		if t != nil {
			p.services = append(p.services, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *peerTokens) encode(e *wire.Encoder) {
	if p.master != nil {
		e.Raw("peermastertoken", p.master.Bytes())
	}
	if p.user != nil {
		e.Raw("peeruseridtoken", p.user.Bytes())
	}
	if len(p.services) > 0 {
		e.BeginArray("peerservicetokens")
		for _, t := range p.services {
			e.RawElement(t.sealed.raw)
		}
		e.EndArray()
	}
}

// due reports whether the sender of an answer waits for tokens.
func (in *incoming) due() bool {
	return len(in.keyRequests) > 0 || in.renewable && in.token != nil && in.userAuth != nil
}

// A giver is the peer that delivered a token to this side.
type giver struct {
	identity string
	conn     *byte // identifies the connection on which it did
	session  int64 // serial number of this side's token that it held then, or Unbound
}

// giver is the sender of a message that delivers a token.
func (c *Conn) giver(in *incoming) giver {
	g := giver{in.sender.Identity, c.id, Unbound}
	switch {
	case in.token != nil:
		g.session = in.token.SerialNumber
	case c.theirs.master != nil:
		g.session = c.theirs.master.SerialNumber
	}
	return g
}

// takes reports whether the sender of a message can be answered under the token that this
// side holds. The reference stack never shows a token, and accepts every token that it
// gave. A sender that shows none is assumed to know the token still if it gave it: on the
// same connection, or if it still has the same session with this side. A sender that
// shows another token may have lost it.
func (c *Conn) takes(in *incoming, held *holding) bool {
	if held == nil || in.shows(held.token) {
		return true
	}
	g := held.giver
	if in.peer.master != nil || !in.sender.Authenticated || g.identity == "" || g.identity != in.sender.Identity {
		return false
	}
	return g.conn == c.id || in.token != nil && in.token.SerialNumber == g.session
}

// shows reports whether a message allows an answer under the token that this side holds:
// it delivers or shows that token.
func (in *incoming) shows(held *MasterToken) bool {
	if held == nil || in.keyResponse != nil {
		return true
	}
	return in.peer.master != nil && bytes.Equal(in.peer.master.sealed.tokenData, held.sealed.tokenData)
}
