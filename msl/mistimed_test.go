package msl_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An untimelyResponder refuses the key requests that it is told to refuse.
type untimelyResponder struct {
	msl.Responder
	refuses func() bool
}

func (u untimelyResponder) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	if u.refuses() {
		return nil, nil, msl.ErrKeyXIncorrectData
	}
	return u.Responder.Respond(ctx, from, keydata)
}

// refuseKeys has the first key exchange of the server refuse key requests.
func (n *network) refuseKeys(refuses func() bool) {
	n.server.KeyExchanges[0] = untimelyResponder{n.server.KeyExchanges[0], refuses}
}

// TestSlowRefusal has a server refuse key requests after minutes: no clock is wrong, so they are
// not sent again.
func TestSlowRefusal(t *testing.T) {
	n, tried := softNetwork(t), 0
	n.refuseKeys(func() bool {
		tried++
		n.now = n.now.Add(2 * time.Minute)
		return true
	})
	if _, _, err := send(t, n.pskClient("device"), secret("hello")); !errors.Is(err, msl.ErrKeyXIncorrectData) || tried != 1 {
		t.Errorf("tried %d times: %v", tried, err)
	}
}

// A clockedEntity calls a function before each message.
type clockedEntity struct {
	msl.LocalEntity
	before func()
}

func (c clockedEntity) Credentials(ctx context.Context) (msl.Credentials, error) {
	c.before()
	return c.LocalEntity.Credentials(ctx)
}

// TestUntimelyRenewal has a server ask for new keys, and refuse the first request for them since
// the clock of the client has jumped: the client asks for them again.
func TestUntimelyRenewal(t *testing.T) {
	n, ahead := softNetwork(t), time.Duration(0)
	asked, refused := false, false
	n.refuseKeys(func() bool {
		first := asked && !refused
		refused = refused || first
		return first
	})
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if m.Scheme != "" || asked {
			return echo(ctx, w, m)
		}
		asked = true
		return msl.ErrResponseRequiresEncryption
	}
	c := n.pskClient("device")
	c.Time = func() time.Time { return n.now.Add(ahead) }
	c.Local = clockedEntity{c.Local, func() {
		if asked {
			ahead = time.Hour
		}
	}}
	mustSend(t, c, secret("get tokens"), 2)
	if r := mustSend(t, c, secret("hello"), 6); r.KeyExchange == "" {
		t.Error("sent again under the token for which the server wanted another")
	}
}
