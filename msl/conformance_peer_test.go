package msl_test

import (
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// conformingPeers are two sides: one whose entity and key exchange are those of a
// combination, and one with pre-shared keys that judges it.
type conformingPeers struct {
	*conforming          // the judge, and what it judges
	asker       *network // the side that authenticates the judge
	judge       *entityauth.PSKEntity
}

func newConformingPeers(t *testing.T) *conformingPeers {
	p := &conformingPeers{conforming: newConforming(t), asker: softNetwork(t)}
	p.judge = p.asker.pskEntity("judge")
	p.asker.server.Custody = msl.CustodyImported
	p.server.Local, p.peers = &entityauth.PSKEntity{Identity: "judge", Keys: p.judge.Keys}, p.asker.server.Peers
	return p
}

// sides makes new sides, without any tokens.
func (p *conformingPeers) sides(t *testing.T, client *msl.Client) (one, two *side) {
	client.Transport, client.Peers = nil, nil
	judging := p.asker.client(p.judge, &keyx.SymmetricOfferer{Keys: p.judge.Keys})
	judging.Transport, judging.Peers = nil, nil
	t.Cleanup(func() { judging.Close() })
	return &side{network: p.asker, client: client}, &side{network: p.network, client: judging}
}

// TestConformancePeerToPeer sends two messages of the combinations on a
// connection of two peers, and one back: every day of some, or with MSL_SOAK of all.
func TestConformancePeerToPeer(t *testing.T) {
	p := newConformingPeers(t)
	step := everyday()
	if soak() {
		step = 1
	}
	before, _ := p.device.Live()
	t.Run("all", func(t *testing.T) {
		for name, some := range everyNth(combinations(), 0, step) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, c := range some {
					t.Run(c.exchange.name+"/"+c.demand.name, func(t *testing.T) { p.conform(t, c) })
				}
			})
		}
	})
	if after, _ := p.device.Live(); after != before {
		t.Errorf("%d keys of requesters were left", after-before)
	}
	p.checkNothingOpen(t)
	p.asker.server.Close()
	p.asker.psk.Close()
	if n, _ := p.asker.store.(*soft.Store).Live(); n != 0 {
		t.Errorf("%d keys of the other side were left", n)
	}
}

func (p *conformingPeers) conform(t *testing.T, c combination) {
	client := p.prepared(t, c)
	defer client.Close()
	one, two := p.sides(t, client)
	first, second := connect(t, one, two)
	if code := c.refused(); code != 0 {
		done := serveAll(second, tell, 1)
		_, err := first.Request(t.Context(), c.request("one"))
		wantPeerCode(t, err, code)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if h := client.Held(); h.MasterToken != nil || h.UserIDTokens != nil {
			t.Errorf("refused, and yet %+v", h)
		}
		return
	}
	wantFirst, wantSecond := c.sights(conformingUser)
	done := serveAll(second, tell, 2)
	p.ask(t, first, c.request("one"), wantFirst)
	client.UserAuth = nil
	p.ask(t, first, c.request("two"), wantSecond)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	held := client.Held()
	if held.MasterToken == nil || (held.UserIDTokens[conformingUser] != nil) != c.demand.user {
		t.Errorf("the requester holds %+v", held)
	}
	p.reverse(t, first, second, c)
}

func (p *conformingPeers) ask(t *testing.T, conn *msl.Conn, req *msl.Request, want sight) {
	t.Helper()
	req.Recipient = "judge"
	r, answer := ask(t, conn, req)
	checkSight(t, answer, want)
	if r.Identity != "judge" {
		t.Errorf("answer of %q", r.Identity)
	}
}

// reverse asks the other way round, with all protection.
func (p *conformingPeers) reverse(t *testing.T, first, second *msl.Conn, c combination) {
	t.Helper()
	done := serveAll(first, tell, 1)
	r, err := second.Request(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true, Body: msl.BytesBody([]byte("back"))})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	checkSight(t, string(data), sight{Identity: "judge", Encrypted: true, Authenticated: true, NonReplayable: true, Body: "back"})
	if r.Identity != c.entity.identity {
		t.Errorf("answer of %q", r.Identity)
	}
}
