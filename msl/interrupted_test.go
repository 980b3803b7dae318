package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An interruption breaks a message of a client, or the answer to it, off after some bytes.
type interruption struct {
	*network
	client  *msl.Client
	message int // from 0; -1 for none
	answer  bool
	at      int

	sizes [][2]int // of the messages and answers that arrived
	sent  int
	acted int // how often the application has read a message to its end
}

// breaksOff makes an exchange of a kind in which the answer to a message, or the message,
// breaks off.
func breaksOff(t *testing.T, kind interruptibleKind, message int, answer bool, at int) *interruption {
	i := &interruption{network: softNetwork(t), message: -1, answer: answer, at: at}
	i.client = kind.device(i.network)
	i.client.Transport, i.handler = i, counting(&i.acted)
	if kind.prepare != nil {
		mustSend(t, i.client, secret("get tokens"), 2)
		kind.prepare(t, i)
	}
	i.message, i.sizes, i.sent, i.acted = message, nil, 0, 0
	return i
}

var errCut = errors.New("connection reset")

func (i *interruption) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request, answer bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	size, now := request.Len(), i.sent == i.message
	if i.sent++; now && !i.answer {
		i.server.Serve(ctx, "test", io.LimitReader(&request, int64(i.at)), io.Discard, i.handler)
		return nil, errCut
	}
	if err := i.server.Serve(ctx, "test", &request, &answer, i.handler); err != nil {
		return nil, err
	}
	i.sizes = append(i.sizes, [2]int{size, answer.Len()})
	if now {
		return io.NopCloser(io.MultiReader(io.LimitReader(&answer, int64(i.at)), iotest.ErrReader(errCut))), nil
	}
	return io.NopCloser(&answer), nil
}

// counting is an application that counts the messages that it read to their ends. It gives a
// service token with each answer.
func counting(acted *int) msl.Handler {
	return func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		data, err := io.ReadAll(m.Body)
		if err != nil {
			return err
		}
		*acted++
		w.SetServiceToken("basket", data, msl.BindEntity)
		_, err = w.Write(data)
		return err
	}
}

// An interruptibleKind is a kind of exchange of a client that has a session if there is something
// to prepare.
type interruptibleKind struct {
	name     string
	device   func(*network) *msl.Client
	prepare  func(*testing.T, *interruption)
	req      msl.Request
	messages int
}

func interruptible() []interruptibleKind {
	psk := func(n *network) *msl.Client { return n.pskClient("device") }
	rsa := func(n *network) *msl.Client { return n.rsaClient("device") }
	later := func(d time.Duration) func(*testing.T, *interruption) {
		return func(_ *testing.T, i *interruption) { i.now = i.now.Add(d) }
	}
	keysReplaced := func(t *testing.T, i *interruption) {
		i.server.Issuer.Keys = softNetwork(t).server.Issuer.Keys
		i.server.Forget()
	}
	login := msl.Request{Encrypted: true, RequestTokens: true, User: "user@example.com"}
	plain, numbered := msl.Request{Encrypted: true}, msl.Request{Encrypted: true, NonReplayable: true}
	return []interruptibleKind{
		{"first message", psk, nil, login, 2},
		{"handshake", rsa, nil, login, 4},
		{"handshake for a number", psk, nil, numbered, 4},
		{"refused token", psk, keysReplaced, plain, 4},
		{"in a session", psk, later(0), plain, 2},
		{"numbered", psk, later(0), numbered, 2},
		{"login", psk, later(0), login, 2},
		{"renewal", psk, later(23 * time.Hour), plain, 2},
		{"renewal, numbered", psk, later(23 * time.Hour), numbered, 2},
		{"expired", psk, later(25 * time.Hour), plain, 2},
	}
}

// apart is how far apart the bytes are after which messages break off.
func apart() int {
	if soak() {
		return 7
	}
	return 1201
}

// attempted does a request, which may fail, and reads the answer.
func attempted(c *msl.Client, req msl.Request) (*msl.Response, string, error) {
	req.Body = msl.BytesBody([]byte("data"))
	r, err := c.Do(context.Background(), &req)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(r.Body)
	return r, string(data), errors.Join(err, r.Body.Close())
}

// TestInterrupted breaks each message and each answer of each kind of exchange off: the next
// request succeeds with no more messages than a first one.
func TestInterrupted(t *testing.T) {
	skipWithRace(t)
	for _, kind := range interruptible() {
		t.Run(kind.name, func(t *testing.T) {
			whole := breaksOff(t, kind, -1, false, 0)
			if r, data, err := attempted(whole.client, kind.req); err != nil || data != "data" || r.Messages != kind.messages {
				t.Fatalf("%+v, %q, %v", r, data, err)
			}
			for message, sizes := range whole.sizes {
				for direction, size := range sizes {
					for at := 0; at < size; at += apart() {
						testInterrupted(t, kind, message, direction == 1, at)
					}
				}
			}
		})
	}
}

func testInterrupted(t *testing.T, kind interruptibleKind, message int, answer bool, at int) {
	i := breaksOff(t, kind, message, answer, at)
	if _, data, err := attempted(i.client, kind.req); !errors.Is(err, errCut) || i.acted > 1 || i.acted == 1 && !answer {
		t.Errorf("message %d, answer %v, cut at %d: read %q, acted %d times, %v", message, answer, at, data, i.acted, err)
	}
	before := i.acted
	if r, data, err := attempted(i.client, kind.req); err != nil || data != "data" || r.Messages > kind.messages || i.acted != before+1 {
		t.Errorf("message %d, answer %v, cut at %d: then %+v, %q, acted %d times, %v", message, answer, at, r, data, i.acted-before, err)
	}
}

// TestDeliveredTwice has a message arrive twice, and either answer reach its sender. The
// server acts on a numbered message once, and asks for it again if its sender did not get the
// answer. The next request succeeds in the same session.
func TestDeliveredTwice(t *testing.T) {
	for _, kind := range interruptible()[4:] {
		for reaches := range 2 {
			i := breaksOff(t, kind, -1, false, 0)
			i.client.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
				i.client.Transport = i
				var message, answers [2]bytes.Buffer
				err := write(io.MultiWriter(&message[0], &message[1]))
				for n := range answers {
					err = errors.Join(err, i.server.Serve(ctx, "test", &message[n], &answers[n], i.handler))
				}
				return io.NopCloser(&answers[reaches]), err
			})
			session, want := i.client.Held().MasterToken.SerialNumber, 2
			if kind.req.NonReplayable {
				want = 1 + reaches
			}
			if _, data, err := attempted(i.client, kind.req); err != nil || data != "data" || i.acted != want {
				t.Errorf("%s, answer %d: %q, acted %d times, want %d, %v", kind.name, reaches, data, i.acted, want, err)
			}
			if r, data, err := attempted(i.client, kind.req); err != nil || data != "data" || r.Messages != 2 || i.client.Held().MasterToken.SerialNumber != session {
				t.Errorf("%s, answer %d: then %+v, %q, %v", kind.name, reaches, r, data, err)
			}
		}
	}
}

// TestStaleAnswer gives a client the answer to an earlier message: it refuses that, keeps its
// session, and reads the next answer.
func TestStaleAnswer(t *testing.T) {
	for _, kind := range interruptible()[4:] {
		i := breaksOff(t, kind, -1, false, 0)
		var earlier []byte
		held := i.client.Held().MasterToken
		for _, stale := range []bool{false, true} {
			i.client.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
				i.client.Transport = i
				answer, err := i.RoundTrip(ctx, write)
				if err != nil || stale {
					return io.NopCloser(bytes.NewReader(earlier)), err
				}
				earlier = []byte(readAll(t, answer))
				return nil, errCut
			})
			want := error(errCut)
			if stale {
				want = msl.ErrUnexpectedResponseMessageID
			}
			if _, data, err := attempted(i.client, kind.req); !errors.Is(err, want) {
				t.Errorf("%s, stale %v: %q, %v", kind.name, stale, data, err)
			}
		}
		if now := i.client.Held().MasterToken; now != held {
			t.Errorf("%s: holds %+v", kind.name, now)
		}
		if r, data, err := attempted(i.client, kind.req); err != nil || data != "data" || r.Messages != 2 {
			t.Errorf("%s: then %+v, %q, %v", kind.name, r, data, err)
		}
	}
}
