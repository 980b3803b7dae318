package msl_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A cutConn closes after that many bytes were written.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p[:min(c.left, len(p))])
	if c.left -= n; err == nil && n < len(p) {
		c.Close()
		err = errCut
	}
	return n, err
}

// Peers are two sides, of which the first sends a request.
type peers struct {
	one, two *side
	acted    int // how often the application of the second has read a request to its end
	left     [2]int
}

func newPeers(t *testing.T, schemes [2]string) *peers {
	p := &peers{}
	p.one, p.two = newSides(t, schemes[0], schemes[1])
	return p
}

// attempt sends a request on a new connection, which may break off after each side wrote that
// many bytes.
func (p *peers) attempt(t *testing.T, req msl.Request, left [2]int) (messages int, err error) {
	a, b := net.Pipe()
	ends := [2]*cutConn{{a, left[0]}, {b, left[1]}}
	first, second := msl.NewConn(ends[0], p.one.server, p.one.client), msl.NewConn(ends[1], p.two.server, p.two.client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		for second.Serve(t.Context(), counting(&p.acted)) == nil {
		}
	}()
	req.Body = msl.BytesBody([]byte("data"))
	r, err := first.Request(t.Context(), &req)
	if err == nil {
		messages = r.Messages
		data, failed := io.ReadAll(r.Body)
		if err = errors.Join(failed, r.Body.Close()); err == nil && string(data) != "data" {
			t.Errorf("read %q", data)
		}
	}
	a.Close()
	<-done
	p.left = [2]int{ends[0].left, ends[1].left}
	return messages, err
}

const muchLeft = 1 << 20

// TestInterruptedPeers breaks off what either peer sends: the next request, on another
// connection, succeeds with no more messages than a first one.
func TestInterruptedPeers(t *testing.T) {
	skipWithRace(t)
	login := msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, User: "user@example.com"}
	for name, req := range map[string]msl.Request{"login": login, "numbered": {Encrypted: true, Authenticated: true, NonReplayable: true}} {
		for _, schemes := range [][2]string{{"PSK", "PSK"}, {"PSK", "RSA"}, {"RSA", "PSK"}} {
			for _, known := range []bool{false, true} {
				t.Run(name+" of "+schemes[0]+" to "+schemes[1], func(t *testing.T) { testInterruptedPeers(t, req, schemes, known) })
			}
		}
	}
}

// testInterruptedPeers uses peers that have tokens of each other if known is set.
func testInterruptedPeers(t *testing.T, req msl.Request, schemes [2]string, known bool) {
	begin := func() *peers {
		p := newPeers(t, schemes)
		if known {
			if _, err := p.attempt(t, req, [2]int{muchLeft, muchLeft}); err != nil {
				t.Fatal(err)
			}
			p.acted = 0
		}
		return p
	}
	whole := begin()
	most, err := whole.attempt(t, req, [2]int{muchLeft, muchLeft})
	if err != nil {
		t.Fatal(err)
	}
	for which := range 2 {
		for at := 0; at < muchLeft-whole.left[which]; at += apart() {
			p, left := begin(), [2]int{muchLeft, muchLeft}
			left[which] = at
			if _, err := p.attempt(t, req, left); err == nil && which == 1 || p.acted > 1 {
				t.Errorf("side %d, cut at %d: acted %d times, %v", which, at, p.acted, err)
			}
			before := p.acted
			if messages, err := p.attempt(t, req, [2]int{muchLeft, muchLeft}); err != nil || messages > most || p.acted != before+1 {
				t.Errorf("side %d, cut at %d: then %d messages, want %d, acted %d times, %v", which, at, messages, most, p.acted-before, err)
			}
		}
	}
}
