package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// heard is the message that a handler without a reply got.
type heard struct {
	data          string
	user          string
	encrypted     bool
	nonReplayable bool
}

// silent returns a handler that sends its messages to the channel, and does not reply.
func silent(got chan<- heard) msl.Handler {
	return func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		data, err := io.ReadAll(m.Body)
		got <- heard{string(data), m.User, m.Encrypted, m.NonReplayable}
		return errors.Join(err, msl.ErrNoReply)
	}
}

// TestSend sends messages without an answer. messages is how many reach the
// server: where keys are needed first, a handshake goes before the data.
func TestSend(t *testing.T) {
	user := "user@example.com"
	for name, test := range map[string]struct {
		client   func(*network) *msl.Client
		req      msl.Request
		messages int
	}{
		"PSK":                {func(n *network) *msl.Client { return n.pskClient("d") }, msl.Request{Encrypted: true, Authenticated: true}, 1},
		"PSK user":           {func(n *network) *msl.Client { return n.pskClient("d") }, msl.Request{Encrypted: true, User: user}, 1},
		"PSK non-replayable": {func(n *network) *msl.Client { return n.pskClient("d") }, msl.Request{Encrypted: true, NonReplayable: true}, 2},
		"RSA plain":          {func(n *network) *msl.Client { return n.rsaClient("d") }, msl.Request{}, 1},
		"RSA encrypted":      {func(n *network) *msl.Client { return n.rsaClient("d") }, msl.Request{Encrypted: true}, 2},
		"RSA user":           {func(n *network) *msl.Client { return n.rsaClient("d") }, msl.Request{User: user}, 2},
		"wish for tokens":    {func(n *network) *msl.Client { return n.pskClient("d") }, msl.Request{Encrypted: true, RequestTokens: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			got := make(chan heard, 1)
			n.handler = silent(got)
			messages := 0
			n.intercept = func(m []byte) []byte { messages++; return m }
			c := test.client(n)
			test.req.Body = msl.BytesBody([]byte("fire"))
			if err := c.Send(context.Background(), &test.req); err != nil {
				t.Fatal(err)
			}
			want := heard{"fire", test.req.User, true, test.req.NonReplayable}
			if name == "RSA plain" {
				want.encrypted = false
			}
			if h := <-got; h != want {
				t.Errorf("server got %+v, want %+v", h, want)
			}
			if messages != test.messages {
				t.Errorf("%d messages, want %d", messages, test.messages)
			}
		})
	}
}

// TestSendIsNotRead sends a message whose answer would be an error: it is not read, and
// the tokens stay.
func TestSendIsNotRead(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	mustSend(t, c, secret("get tokens"), 2)
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrRejectEntity }
	if err := c.Send(context.Background(), &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("fire"))}); err != nil {
		t.Fatal(err)
	}
	n.handler = echo
	if r := mustSend(t, c, secret("again"), 2); r.KeyExchange != "" {
		t.Error("the tokens are gone")
	}
}

func TestSendLostTransport(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	lost := errors.New("lost")
	c.Transport = transportFunc(func(_ context.Context, write func(io.Writer) error) (io.ReadCloser, error) { return nil, lost })
	if err := c.Send(context.Background(), secret("fire")); !errors.Is(err, lost) {
		t.Errorf("got %v", err)
	}
}

// TestPeerSend sends in a peer-to-peer network, between requests on the same
// connection and before the first.
func TestPeerSend(t *testing.T) {
	one, two := newSides(t, "RSA", "PSK")
	a, b := connect(t, one, two)
	got := make(chan heard, 2)
	done := make(chan error, 1)
	go func() {
		done <- errors.Join(b.Serve(t.Context(), silent(got)), b.Serve(t.Context(), echo), b.Serve(t.Context(), silent(got)))
	}()
	fire := &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody([]byte("fire"))}
	if err := a.Send(t.Context(), fire); err != nil {
		t.Fatal(err)
	}
	ask(t, a, secret2("between"))
	if err := a.Send(t.Context(), fire); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if h := <-got; h.data != "fire" || !h.encrypted {
			t.Errorf("peer got %+v", h)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPush pushes two messages on a stream of their own while a request is
// answered.
func TestPush(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	mustSend(t, c, secret("get tokens"), 2)
	var pushed bytes.Buffer
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for _, text := range []string{"news", "more news"} {
			err := w.Push(&pushed, func(p *msl.ResponseWriter) error {
				p.SetServiceToken("mark", []byte(text), msl.BindEntity)
				_, err := io.WriteString(p, text)
				return err
			})
			if err != nil {
				return err
			}
		}
		return echo(ctx, w, m)
	}
	answer := mustSend(t, c, secret("subscribe"), 2)
	inbox := c.NewInbox(bytes.NewReader(pushed.Bytes()))
	first, err := inbox.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Body.Close(); err != nil { // unread
		t.Fatal(err)
	}
	second, err := inbox.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(second.Body)
	if string(data) != "more news" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
	if err := second.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if first.MessageID == second.MessageID || second.MessageID == answer.MessageID {
		t.Error("pushed messages share an id")
	}
	if _, err := inbox.Receive(t.Context()); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	marks := 0
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for _, s := range m.ServiceTokens {
			if s.Name == "mark" && string(s.Data) == "more news" {
				marks++
			}
		}
		return echo(ctx, w, m)
	}
	mustSend(t, c, secret("with the token"), 2)
	if marks != 1 {
		t.Errorf("%d service tokens of the pushed messages came back", marks)
	}
}

// TestPushNotForUs offers a client the messages for another one.
func TestPushNotForUs(t *testing.T) {
	n := softNetwork(t)
	ours, theirs := n.pskClient("ours"), n.pskClient("theirs")
	mustSend(t, ours, secret("get tokens"), 2)
	mustSend(t, theirs, secret("get tokens"), 2)
	var pushed bytes.Buffer
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		return errors.Join(w.Push(&pushed, func(p *msl.ResponseWriter) error { return nil }), echo(ctx, w, m))
	}
	mustSend(t, theirs, secret("subscribe"), 2)
	_, err := ours.NewInbox(&pushed).Receive(t.Context())
	if !errors.Is(err, msl.ErrMasterTokenUntrusted) {
		t.Errorf("got %v, want %v", err, msl.ErrMasterTokenUntrusted)
	}
}

// TestPushAfterRefused reads on after a message that is not for this client: no chunk of it
// is taken for a message.
func TestPushAfterRefused(t *testing.T) {
	n := softNetwork(t)
	ours, theirs := n.pskClient("ours"), n.pskClient("theirs")
	mustSend(t, ours, secret("get tokens"), 2)
	mustSend(t, theirs, secret("get tokens"), 2)
	var pushed bytes.Buffer
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		push := w.Push(&pushed, func(p *msl.ResponseWriter) error {
			_, err := p.Write(chunky)
			return err
		})
		return errors.Join(push, echo(ctx, w, m))
	}
	mustSend(t, theirs, secret("subscribe"), 2)
	mustSend(t, ours, secret("subscribe"), 2)
	inbox := ours.NewInbox(&pushed)
	if _, err := inbox.Receive(t.Context()); !errors.Is(err, msl.ErrMasterTokenUntrusted) {
		t.Errorf("got %v, want %v", err, msl.ErrMasterTokenUntrusted)
	}
	r, err := inbox.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(data, chunky) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if err := r.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := inbox.Receive(t.Context()); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
