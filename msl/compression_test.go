package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// compressible is data that takes little where it is compressed, and not so little that
// it is taken for an attack.
var compressible = func() string {
	var b strings.Builder
	for n := range 3000 {
		fmt.Fprintf(&b, "secret %d beside text\n", n)
	}
	return b.String()
}()

// A sizes transport counts the bytes of the last message and its answer.
type sizes struct {
	msl.Transport
	sent, received int
}

func (s *sizes) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	s.sent = request.Len()
	stream, err := s.Transport.RoundTrip(ctx, func(w io.Writer) error {
		_, err := w.Write(request.Bytes())
		return err
	})
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(stream)
	s.received = len(answer)
	return io.NopCloser(bytes.NewReader(answer)), errors.Join(err, stream.Close())
}

// TestUncompressed sends messages, each of which says for itself whether it is
// compressed, with the data of a token as well.
func TestUncompressed(t *testing.T) {
	skipWithRace(t)
	const much = 60000 // more than compressed data, and less than the data in Base64
	for name, test := range map[string]struct {
		request, answer       bool // uncompressed
		longRequest, longSent bool
	}{
		"as ever":     {false, false, false, false},
		"the request": {true, false, true, true}, // asks for an answer that is not, either
		"the answer":  {false, true, false, true},
		"both":        {true, true, true, true},
	} {
		for _, what := range []string{"data", "token"} {
			t.Run(name+" "+what, func(t *testing.T) {
				n := softNetwork(t)
				client := n.pskClient("device")
				client.ServiceTokens = n.server.ServiceTokens
				count := &sizes{Transport: client.Transport}
				client.Transport = count
				if _, _, err := send(t, client, plainly()); err != nil { // for a master token
					t.Fatal(err)
				}
				req := plainly()
				req.Uncompressed = test.request
				if what == "data" {
					req.Body = msl.BytesBody([]byte(compressible))
				} else {
					req.ServiceTokens = []msl.TokenChange{{Name: "up", Data: []byte(compressible)}}
				}
				n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					w.Uncompressed = test.answer
					if _, err := io.Copy(io.Discard, m.Body); err != nil {
						return err
					}
					if what == "token" {
						w.ChangeServiceToken(msl.TokenChange{Name: "up"}) // it would come back
						w.SetServiceToken("down", []byte(compressible), msl.BindNone)
						return nil
					}
					_, err := io.WriteString(w, compressible)
					return err
				}
				_, got, err := send(t, client, req)
				if err != nil || what == "data" && got != compressible {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if count.sent > much != test.longRequest {
					t.Errorf("a request of %d bytes", count.sent)
				}
				if count.received > much != test.longSent {
					t.Errorf("an answer of %d bytes", count.received)
				}
			})
		}
	}
}

// TestUncompressedPush keeps what the writer that it is from says.
func TestUncompressedPush(t *testing.T) {
	for _, uncompressed := range []bool{false, true} {
		n := softNetwork(t)
		client := n.pskClient("device")
		var pushed bytes.Buffer
		n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Uncompressed = uncompressed
			return w.Push(&pushed, func(w *msl.ResponseWriter) error {
				_, err := io.WriteString(w, compressible)
				return err
			})
		}
		if _, _, err := send(t, client, plainly()); err != nil {
			t.Fatal(err)
		}
		if long := pushed.Len() > len(compressible); long != uncompressed {
			t.Errorf("%d bytes", pushed.Len())
		}
	}
}

// A counted connection counts what is written to it.
type counted struct {
	net.Conn
	n atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// TestUncompressedPeer is TestUncompressed between peers.
func TestUncompressedPeer(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	asks, answers := &counted{Conn: a}, &counted{Conn: b}
	first, second := msl.NewConn(asks, one.server, one.client), msl.NewConn(answers, two.server, two.client)
	for _, c := range []struct{ tokens, request, answer bool }{{true, false, false}, {}, {false, true, false}, {false, false, true}, {false, true, true}} {
		done := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Uncompressed = c.answer
			return echo(ctx, w, m)
		}, 1)
		asks.n.Store(0)
		answers.n.Store(0)
		req := secret2(compressible)
		req.Uncompressed = c.request
		r, err := first.Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, r.Body); got != compressible {
			t.Errorf("%d bytes", len(got))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if sent, received := asks.n.Load() > 60000, answers.n.Load() > 60000; sent != c.request || received != (c.request || c.answer) {
			t.Errorf("%+v: sent %d bytes, received %d", c, asks.n.Load(), answers.n.Load())
		}
	}
	for _, uncompressed := range []bool{false, true} {
		done := serveAll(second, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Uncompressed = uncompressed
			w.SetServiceToken("token", []byte(compressible), msl.BindNone)
			return nil
		}, 1)
		answers.n.Store(0)
		if ask(t, first, secret2("")); <-done != nil || answers.n.Load() > 60000 != uncompressed {
			t.Errorf("a token, uncompressed %v: received %d bytes", uncompressed, answers.n.Load())
		}
	}
}

// TestEmptyChunkCompressed ends a message with a chunk that names a compression and has no
// data: there is nothing to decompress. That makes it no less a handshake.
func TestEmptyChunkCompressed(t *testing.T) {
	last := object{"sequencenumber": 1, "messageid": 1, "endofmsg": true, "data": ""}
	for _, algorithm := range []string{"GZIP", "LZW"} {
		last := with(last, object{"compressionalgo": algorithm})
		r := newRecorded(t)
		if e := r.serve(pskClient1.message(byPSK("client1"), one(), last)); e.served != nil || !e.called || e.readErr != nil || len(e.body) > 0 {
			t.Errorf("%s: served %v, read %q, %v", algorithm, e.served, e.body, e.readErr)
		}
		after := with(last, object{"sequencenumber": 2})
		if e := r.serve(pskClient1.message(byPSK("client1"), one(), with(hello, object{"endofmsg": nil}), after)); e.readErr != nil || string(e.body) != "hello" {
			t.Errorf("%s after data: read %q, %v", algorithm, e.body, e.readErr)
		}
		called := false
		err := r.server.Serve(t.Context(), "test", bytes.NewReader(pskClient1.message(byPSK("client1"), one(requests(pskRequest)), last)), io.Discard,
			func(context.Context, *msl.ResponseWriter, *msl.Message) error { called = true; return nil })
		if err != nil || called {
			t.Errorf("%s in a handshake: called %v, %v", algorithm, called, err)
		}
	}
}

// TestAnsweredCapabilities asks with capabilities: an answer has those that both sides have, in
// the order of the request, and all three lists.
func TestAnsweredCapabilities(t *testing.T) {
	for asked, want := range map[string]string{
		`{"compressionalgos":["LZW","X"],"languages":["fr","en-US"],"encoderformats":["CBOR","JSON"]}`:            `{"compressionalgos":["LZW"],"languages":["en-US"],"encoderformats":["JSON"]}`,
		`{"compressionalgos":["LZW","GZIP","LZW","GZIP"],"languages":["en-US"],"encoderformats":["JSON","JSON"]}`: `{"compressionalgos":["LZW","GZIP"],"languages":["en-US"],"encoderformats":["JSON"]}`,
		`{"compressionalgos":["X"],"languages":["fr"],"encoderformats":["CBOR"]}`:                                 `{"compressionalgos":[],"languages":[],"encoderformats":[]}`,
		`{}`: `{"compressionalgos":[],"languages":[],"encoderformats":[]}`,
		`{"compressionalgos":"LZW","languages":1,"encoderformats":"JSON"}`: `{"compressionalgos":[],"languages":[],"encoderformats":[]}`,
	} {
		r := newRecorded(t)
		e := r.serve(fromToken(object{"capabilities": json.RawMessage(asked)}))
		a, err := readAnswer(e.wire, r.public(), &sessionRaw, func(answerHeader) (*rawKeys, error) { return &sessionRaw, nil })
		if err != nil || string(a.header.Capabilities) != want {
			t.Errorf("%s: answered with %s, %v", asked, a.header.Capabilities, err)
		}
	}
	for _, asked := range []object{{"capabilities": object{"languages": []string{"en-US"}}}, {}} {
		r := newRecorded(t)
		if len(asked) > 0 {
			r.server.Capabilities = nil
		}
		e := r.serve(fromToken(asked))
		a, err := readAnswer(e.wire, r.public(), &sessionRaw, func(answerHeader) (*rawKeys, error) { return &sessionRaw, nil })
		if err != nil || a.header.Capabilities != nil {
			t.Errorf("a side without any: answered with %s, %v", a.header.Capabilities, err)
		}
	}
}
