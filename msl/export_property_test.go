package msl

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// rewrite parses b, writes what it read and parses that: it must be the same, and
// be written the same again.
func rewrite[T any](b []byte, parse func(wire.Object) (T, error), write func(T) []byte) error {
	var values [2]T
	var texts [2][]byte
	for i := range 2 {
		o, err := wire.Parse(bytes.Clone(b), wire.Limits{}) // it may be decoded in place
		if err != nil {
			return err
		}
		if values[i], err = parse(o); err != nil {
			return err
		}
		b = write(values[i])
		texts[i] = b
	}
	if !reflect.DeepEqual(values[0], values[1]) || !bytes.Equal(texts[0], texts[1]) {
		return fmt.Errorf("read as %+v, then as %+v; written as %s, then as %s", values[0], values[1], texts[0], texts[1])
	}
	return nil
}

// RewriteHeader, RewriteChunk and RewriteCapabilities parse the inside of a part of
// a message, write it, and compare.
func RewriteHeader(b []byte, s *Server, mt *MasterToken, peerToPeer bool) error {
	s.init()
	rules := headerRules{token: mt, encrypted: true, tokens: 64, serviceTokens: s.ServiceTokens, peerServices: s.ServiceTokens,
		users: s.Users, exchanges: s.exchanges, delivers: s.delivers, peerToPeer: peerToPeer, openUser: parseUserIDToken}
	return rewrite(b, func(o wire.Object) (header, error) {
		h, err := parseHeader(o, rules)
		h.unanswerable = nil // it is not written to the wire
		return h, err
	}, func(h header) []byte { return h.encode(seconds(h.timestamp)) })
}

func RewriteChunk(b []byte) error {
	return rewrite(b, parseChunk, func(c chunk) []byte {
		e := wire.NewEncoder(0)
		c.encode(e)
		return e.Encoded()
	})
}

func RewriteCapabilities(b []byte) error {
	return rewrite(b, parseCapabilities, func(c *Capabilities) []byte {
		e := wire.NewEncoder(0)
		e.Begin()
		c.encode(e)
		e.End()
		o, _ := wire.Parse(e.Encoded(), wire.Limits{})
		inner, _ := o.Object("capabilities")
		return inner.Raw()
	})
}

// EncodeError writes the inside of an error header.
func EncodeError(code Code, messageID int64, user string) []byte {
	answer := answerTo(code)
	answer.user = user
	return answer.encode(messageID, seconds(1700000000))
}

// ServiceTokenBytes returns a service token as it was received.
func ServiceTokenBytes(t *ServiceToken) []byte { return t.sealed.raw }

// encode returns the inside of a header.
func (h *header) encode(now time.Time) []byte {
	e := wire.NewEncoder(384)
	h.write(e, now)
	return e.Encoded()
}
