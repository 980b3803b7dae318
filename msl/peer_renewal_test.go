package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestPeerRenewalStreaming renews the tokens of both sides by a request that is
// answered while it is sent, on a connection without any buffer. The side that
// answers asks for keys, and writes on before it reads any.
func TestPeerRenewalStreaming(t *testing.T) {
	for _, scheme := range []string{"PSK", "RSA"} {
		for _, held := range []int{0, 70000} {
			if raceDetector && held == 0 {
				continue
			}
			for _, later := range []time.Duration{2 * time.Hour, 25 * time.Hour} {
				for _, name := range []string{"io.Copy", "flush"} {
					t.Run(fmt.Sprintf("%s/%d/%v/%s", scheme, held, later, name), func(t *testing.T) {
						testRenewalStreaming(t, scheme, held, later, answeringHandlers[name])
					})
				}
			}
		}
	}
}

func testRenewalStreaming(t *testing.T, scheme string, held int, later time.Duration, handle msl.Handler) {
	one, two := newSides(t, "PSK", scheme)
	one.server.Limits.Held, two.server.Limits.Held = held, held
	first, second := connectLater(t, one, two, later)
	data := random(100000) // more than may be held
	done := serveAll(second, handle, 2)
	for range 2 {
		got, err := askPeer(first, data)
		// A sender that proves itself by RSA needs a handshake first under an expired token,
		// which cannot wait for more of the request than may be held.
		if scheme == "RSA" && held > 0 && later > 24*time.Hour && errors.Is(err, msl.ErrMSLCommsFailure) {
			continue
		}
		if err != nil || !bytes.HasSuffix(got, data) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// connectLater is connect, with tokens that are as old as that.
func connectLater(t *testing.T, one, two *side, age time.Duration) (*msl.Conn, *msl.Conn) {
	first, second := connect(t, one, two)
	done := serveAll(second, echo, 1)
	ask(t, first, secret2("get tokens"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	one.now, two.now = one.now.Add(age), two.now.Add(age)
	return first, second
}

func askPeer(c *msl.Conn, data []byte) ([]byte, error) {
	req := secret2("")
	req.Body = msl.BytesBody(data)
	r, err := c.Request(context.Background(), req)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r.Body)
	return got, errors.Join(err, r.Body.Close())
}

// TestPeerFirstStreaming asks for the first tokens of a connection by a request
// whose answer does not fit in what may be held.
func TestPeerFirstStreaming(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	two.server.Limits.Held = 100000
	first, second := connect(t, one, two)
	data := random(300000)
	done := serveAll(second, echo, 1)
	if got, err := askPeer(first, data); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeerChannelRenewal opens a channel whose answer asks for new tokens: they
// are sent when it ends.
func TestPeerChannelRenewal(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	first, second := connectLater(t, one, two, 2*time.Hour)
	talkOver(t, first, second)
}

// talkOver opens a channel and talks over it. Its answer begins before there is anything to say.
func talkOver(t *testing.T, first, second *msl.Conn) {
	t.Helper()
	done := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if err := w.Flush(); err != nil {
			return err
		}
		return shout(ctx, w, m)
	}, 1)
	talk(t, func(body io.Reader) (*msl.Response, error) {
		req := secret2("")
		req.Body, req.Interactive = msl.ReaderBody(body, 0), true
		return first.Request(t.Context(), req)
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeerAnswerPutOff flushes an answer that needs a handshake of its own while its
// request is unread: it is sent later, and loses none of its tokens. The next message can
// use the session that it delivers.
func TestPeerAnswerPutOff(t *testing.T) {
	store := newFaultyStore(t)
	one := &side{network: softNetwork(t), identity: "one", store: soft.New()}
	two := &side{network: newNetwork(t, store), identity: "two", store: soft.New()}
	t.Cleanup(func() { one.store.Close(); two.store.Close() })
	one.enrol(two, "PSK")
	two.enrol(one, "PSK")
	one.server.Issuer.RenewAfter, one.server.Issuer.Lifetime = 10*time.Minute, time.Hour
	first, second := connectLater(t, one, two, 2*time.Hour)
	done := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if err := w.Flush(); err != nil { // nothing is written yet: that may be all there is
			return err
		}
		return echo(ctx, w, m)
	}, 2)
	data := random(300000)
	if got, err := askPeer(first, data); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	store.watch(nil)
	ask(t, first, secret2("next"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, op := range store.operations() {
		if strings.HasPrefix(op, "Unseal") {
			t.Errorf("the session was not at hand: %v", store.operations())
		}
	}
	renewsStill(t, two, one)
}

// TestPeersRenewAtOnce has two peers ask each other at the same moment, when the
// tokens of both are to be renewed: neither answer waits for the request of its own
// side, which the other one would answer later.
func TestPeersRenewAtOnce(t *testing.T) {
	for _, age := range []time.Duration{2 * time.Hour, 25 * time.Hour} {
		renewAtOnce(t, age)
	}
}

func renewAtOnce(t *testing.T, age time.Duration) {
	t.Helper()
	one, two := newSides(t, "RSA", "RSA")
	connectLater(t, one, two, age)
	asks, answers := connect(t, one, two)
	answersToo, asksToo := connect(t, one, two)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var both sync.WaitGroup
	both.Add(2)
	handle := func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if _, err := io.ReadAll(m.Body); err != nil {
			return err
		}
		both.Done()
		both.Wait()
		_, err := w.Write([]byte("hi"))
		return err
	}
	results := make(chan error, 4)
	for _, c := range []*msl.Conn{answers, answersToo} {
		go func() { results <- c.Serve(ctx, handle) }()
	}
	for _, c := range []*msl.Conn{asks, asksToo} {
		go func() {
			r, err := c.Request(ctx, &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody([]byte("x"))})
			if err == nil {
				_, err = io.ReadAll(r.Body)
				err = errors.Join(err, r.Body.Close())
			}
			results <- err
		}()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestPeerChannelRefused refuses a channel in a way that asks for another message: what was
// read of its body cannot be sent again.
func TestPeerChannelRefused(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	first, second := connectLater(t, one, two, 0)
	calls := 0
	done := serveAll(second, func(context.Context, *msl.ResponseWriter, *msl.Message) error {
		calls++
		return msl.Failure(msl.ErrMasterTokenRejectedByApp, "test", nil)
	}, 1)
	req := secret2("line")
	req.Interactive = true
	var refused *msl.PeerError
	if _, err := first.Request(t.Context(), req); !errors.As(err, &refused) || refused.Response != msl.EntityReauth {
		t.Errorf("got %v", err)
	}
	if err := <-done; err != nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
