package msl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// elsewhere is the answer to a client whose token another server does not accept.
var elsewhere = &msl.PeerError{Response: msl.EntityReauth, Code: msl.ErrMasterTokenUntrusted, InternalCode: int64(msl.ErrMasterTokenUntrusted.Internal())}

// TestVerdictsOfOtherServers has a handler fail because of what it asked of another server.
// Its sender must not take that for a verdict on its own tokens, or for a message that
// broke off.
func TestVerdictsOfOtherServers(t *testing.T) {
	own := &msl.Error{Code: msl.ErrResponseRequiresUserIDToken, MessageID: -1, Err: elsewhere}
	n := softNetwork(t)
	served := reported(n.server)
	client := n.pskClient("device")
	mustSend(t, client, plainly(), 2) // for a token
	for name, c := range map[string]struct {
		err   error
		code  msl.Code
		fault msl.Fault
	}{
		"refused":             {elsewhere, msl.ErrInternalException, msl.FaultApplication},
		"refused, wrapped":    {fmt.Errorf("ask: %w", errors.Join(errors.New("x"), elsewhere)), msl.ErrInternalException, msl.FaultApplication},
		"refused, no code":    {&msl.PeerError{Response: msl.Expired, Code: -1}, msl.ErrInternalException, msl.FaultApplication},
		"broke off":           {fmt.Errorf("ask: %w", msl.ErrTruncated), msl.ErrInternalException, msl.FaultApplication},
		"an error of its own": {own, msl.ErrResponseRequiresUserIDToken, msl.FaultPeer},
		"a code of its own":   {fmt.Errorf("%w: %w", msl.ErrResponseRequiresUserIDToken, elsewhere), msl.ErrResponseRequiresUserIDToken, msl.FaultPeer},
	} {
		ran := 0
		n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			ran++
			return c.err
		}
		held := client.Held().MasterToken
		got := peerError(t, client, plainly())
		if got.Code != c.code || c.code == msl.ErrInternalException && ran != 1 {
			t.Errorf("%s: answered %v after %d runs", name, got, ran)
		}
		if now := client.Held().MasterToken; now == nil || now.SerialNumber != held.SerialNumber {
			t.Errorf("%s: the client dropped its token", name)
		}
		if v := (*served)[len(*served)-1]; v.Fault != c.fault {
			t.Errorf("%s: fault of the %v", name, v.Fault)
		}
	}
}

// TestVerdictsOfOtherServersAtPeers is the same for peers.
func TestVerdictsOfOtherServersAtPeers(t *testing.T) {
	for name, failure := range map[string]error{"refused": elsewhere, "broke off": fmt.Errorf("ask: %w", msl.ErrTruncated)} {
		one, two := newSides(t, "PSK", "PSK")
		first, second := connect(t, one, two)
		ran := 0
		done := serveAll(second, func(context.Context, *msl.ResponseWriter, *msl.Message) error { ran++; return failure }, 1)
		var refused *msl.PeerError
		if _, err := first.Request(t.Context(), secret2("x")); !errors.As(err, &refused) || refused.Code != msl.ErrInternalException || ran != 1 {
			t.Errorf("%s: %v after %d runs", name, err, ran)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerdictsOfOthersAtTheClient has what a client asks its application for fail with the
// error of another server: that is not an answer of this one, and nothing to try again for.
func TestVerdictsOfOthersAtTheClient(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	asked := 0
	client.UserAuth = func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
		asked++
		return nil, elsewhere
	}
	login, bodiless := plainly(), plainly()
	login.User = "user@example.com"
	bodiless.Body = func() (io.ReadCloser, error) { asked++; return nil, elsewhere }
	one, two := newSides(t, "PSK", "PSK")
	first, second := connect(t, one, two)
	serveAll(second, echo, 1)
	for name, do := range map[string]func() error{
		"user":         func() error { _, _, err := send(t, client, login); return err },
		"body":         func() error { _, _, err := send(t, client, bodiless); return err },
		"body to peer": func() error { _, err := first.Request(t.Context(), bodiless); return err },
	} {
		asked = 0
		if err := do(); !errors.Is(err, elsewhere) || asked != 1 {
			t.Errorf("%s: asked %d times: %v", name, asked, err)
		}
	}
}

// A failingState cannot say whether anybody is revoked.
type failingState struct {
	msl.State
	err error
}

func (s failingState) Revoked(context.Context, string, string) error { return s.err }

// TestStateThatBreaksOff has the state of a peer fail like a connection that ended. The
// message was there, and gets an answer.
func TestStateThatBreaksOff(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	first, second := connect(t, one, two)
	done := serveAll(second, echo, 1)
	ask(t, first, secret2("x"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	second.Server.State = failingState{second.Server.State, fmt.Errorf("state: %w", io.EOF)}
	done = serveAll(second, echo, 1)
	var refused *msl.PeerError
	if _, err := first.Request(t.Context(), secret2("x")); !errors.As(err, &refused) || refused.Code != msl.ErrInternalException {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
