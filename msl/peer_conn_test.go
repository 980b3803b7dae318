package msl_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A side is one end of a peer-to-peer network: a server of its own, and a client
// of the other side.
type side struct {
	*network
	identity string
	client   *msl.Client
	store    *soft.Store
}

// newSides makes two sides that know each other, each by a scheme of its own.
func newSides(t testing.TB, a, b string) (*side, *side) {
	one := &side{network: softNetwork(t), identity: "one", store: soft.New()}
	two := &side{network: softNetwork(t), identity: "two", store: soft.New()}
	t.Cleanup(func() { one.store.Close(); two.store.Close() })
	one.enrol(two, a)
	two.enrol(one, b)
	return one, two
}

// enrol makes the identity of s, registers it with the other side, and makes the
// client with which s holds the tokens of the other side.
func (s *side) enrol(other *side, scheme string) {
	var entity msl.LocalEntity
	var exchange msl.Offerer = wrappedWith(s.t, s.store)
	switch scheme {
	case "PSK":
		psk := other.pskEntity(s.identity)
		entity, exchange = psk, &keyx.SymmetricOfferer{Keys: psk.Keys}
	case "RSA":
		key := provision(s.t, s.store, "identity", keystore.RSASign2048).(crypto.Signer)
		entity = &entityauth.RSAEntity{Identity: s.identity, KeyID: "key", Key: key}
		other.directory[s.identity] = &msl.Entity{Identity: s.identity, Scheme: "RSA", KeyID: "key", PublicKey: key.Public().(*rsa.PublicKey)}
	case "NONE":
		entity = &entityauth.NoneEntity{Identity: s.identity}
		other.directory[s.identity] = &msl.Entity{Identity: s.identity, Scheme: "NONE"}
	}
	s.client = other.network.client(entity, exchange)
	s.client.Transport, s.client.Peers = nil, nil
	s.server.Local, s.server.Name = entity, s.identity
}

// connect joins the two sides by a pipe without any buffer.
func connect(t testing.TB, one, two *side) (*msl.Conn, *msl.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	deadline := time.Now().Add(2 * time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	return msl.NewConn(a, one.server, one.client), msl.NewConn(b, two.server, two.client)
}

// serveAll answers until the connection ends.
func serveAll(c *msl.Conn, handle msl.Handler, n int) <-chan error {
	done := make(chan error, 1)
	go func() {
		for range n {
			if err := c.Serve(context.Background(), handle); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return done
}

func ask(t testing.TB, c *msl.Conn, req *msl.Request) (*msl.Response, string) {
	t.Helper()
	r, err := c.Request(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return r, string(data)
}

func TestPeerToPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, a := range []string{"PSK", "RSA", "NONE"} {
		for _, b := range []string{"PSK", "RSA", "NONE"} {
			for name, demands := range map[string]msl.Request{
				"encrypted":   {Encrypted: true, Authenticated: true, RequestTokens: true},
				"transaction": {Encrypted: true, Authenticated: true, RequestTokens: true, NonReplayable: true, User: "user@example.com"},
				"signed":      {Authenticated: true},
				"plain":       {},
			} {
				t.Run(a+" asks "+b+" "+name, func(t *testing.T) { testPeerToPeer(t, a, b, demands) })
			}
		}
	}
}

func testPeerToPeer(t *testing.T, a, b string, demands msl.Request) {
	one, two := newSides(t, a, b)
	first, second := connect(t, one, two)
	protected := demands.Encrypted
	handle := func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if m.Identity != "one" || m.Encrypted != (m.Scheme == "" || m.Scheme == "PSK") || protected && !m.Encrypted || m.NonReplayable != demands.NonReplayable || m.User != demands.User {
			t.Errorf("message of %+v", m)
		}
		w.SetServiceToken("visit", nil, msl.BindNone)
		return echo(ctx, w, m)
	}
	done := serveAll(second, handle, 3)
	for i := range 3 {
		req := demands
		req.Body, req.Recipient = msl.BytesBody([]byte("hello")), "two"
		r, data := ask(t, first, &req)
		if data != "hello" || r.Identity != "two" {
			t.Fatalf("request %d: %q from %q", i, data, r.Identity)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The other way round, on the same connection, with the same tokens.
	reverse := serveAll(first, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if m.Identity != "two" {
			t.Errorf("message of %q", m.Identity)
		}
		return echo(ctx, w, m)
	}, 2)
	for range 2 {
		if _, data := ask(t, second, &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody([]byte("back"))}); data != "back" {
			t.Fatalf("got %q", data)
		}
	}
	if err := <-reverse; err != nil {
		t.Fatal(err)
	}
}

// TestPeerRenewal renews the tokens of both sides over one connection.
func TestPeerRenewal(t *testing.T) {
	one, two := newSides(t, "PSK", "RSA")
	first, second := connect(t, one, two)
	done := serveAll(second, echo, 6)
	var keys int
	for i := range 6 {
		r, data := ask(t, first, secret2("hello"))
		if data != "hello" {
			t.Fatalf("got %q", data)
		}
		if r.KeyExchange != "" {
			keys++
		}
		if i == 2 {
			one.now, two.now = one.now.Add(2*time.Hour), two.now.Add(2*time.Hour)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if keys != 1 { // the first ones came with a handshake
		t.Errorf("tokens were delivered with %d answers, want 1", keys)
	}
}

func secret2(body string) *msl.Request {
	return &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Recipient: "two", Body: msl.BytesBody([]byte(body))}
}

// TestPeerErrors recovers from the other side's errors on the same connection.
func TestPeerErrors(t *testing.T) {
	one, two := newSides(t, "RSA", "RSA")
	first, second := connect(t, one, two)
	refuse := []error{msl.ErrMessageReplayed, nil, msl.ErrMasterTokenUntrusted, nil, msl.ErrEntityNotFound}
	done := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		err := refuse[0]
		refuse = refuse[1:]
		if err != nil {
			return err
		}
		return echo(ctx, w, m)
	}, 5)
	for range 2 {
		if _, data := ask(t, first, secret2("hello")); data != "hello" {
			t.Fatalf("got %q", data)
		}
	}
	_, err := first.Request(context.Background(), secret2("x"))
	if !errors.Is(err, msl.ErrEntityNotFound) {
		t.Errorf("got %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	one.server.Close()
	two.server.Close()
	one.client.Close()
	two.client.Close()
	for _, s := range []*side{one, two} {
		s.psk.Close()
		if n, _ := s.network.store.(*soft.Store).Live(); n != 0 {
			t.Errorf("%s: %d issued keys are still open", s.identity, n)
		}
		// The last message may have been refused before it was written to its end.
		n, _ := s.store.Live()
		for deadline := time.Now().Add(5 * time.Second); n != 0 && time.Now().Before(deadline); n, _ = s.store.Live() {
			time.Sleep(time.Millisecond)
		}
		if n != 0 {
			t.Errorf("%s: %d held keys are still open", s.identity, n)
		}
	}
}

// TestPeerVectors takes the recorded peer-to-peer messages as requests.
func TestPeerVectors(t *testing.T) {
	var v struct{ Cases []messageCase }
	readVectors(t, "spec/messages_p2p.json", &v)
	read := 0
	for _, c := range v.Cases {
		if unconfigured(c.Name) || c.Parsed.OK == nil || c.Parsed.OK.KeyResponseData || c.Parsed.OK.Handshake {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r := newRecorded(t)
			r.state.anyID = true
			client := &msl.Client{Local: r.server.Local, Time: r.clock}
			conn := msl.NewConn(struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(c.Message.Bytes), io.Discard}, r.server, client)
			err := conn.Serve(context.Background(), func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				payload, err := io.ReadAll(m.Body)
				if string(payload) != string(c.Parsed.OK.Payload) || m.Identity != c.Parsed.OK.Identity || m.MessageID != c.Parsed.OK.MessageID {
					t.Errorf("read %q of %+v", payload, m)
				}
				w.Encrypted, w.Authenticated = false, false // no key exchange was recorded
				read++
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if err := conn.Serve(context.Background(), echo); err != io.EOF {
				t.Errorf("at the end of the connection: %v", err)
			}
		})
	}
	if read < 6 {
		t.Errorf("%d messages were read", read)
	}
}

// TestChannel keeps both directions of one request open: what one side writes
// arrives before the other has ended, without any further handshake.
func TestChannel(t *testing.T) {
	one, two := newSides(t, "PSK", "RSA")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		rw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer rw.Close()
		c := msl.NewConn(rw, two.server, two.client)
		done <- errors.Join(c.Serve(context.Background(), echo), c.Serve(context.Background(), shout))
	}()
	rw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer rw.Close()
	c := msl.NewConn(rw, one.server, one.client)
	ask(t, c, secret2("to exchange keys"))
	talk(t, func(body io.Reader) (*msl.Response, error) {
		req := secret2("")
		req.Body, req.Interactive = msl.ReaderBody(body, 0), true
		return c.Request(context.Background(), req)
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// shout answers each line as it comes.
func shout(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	lines := bufio.NewScanner(m.Body)
	for lines.Scan() {
		fmt.Fprintln(w, strings.ToUpper(lines.Text()))
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// talk writes a line only when the answer to the one before has come.
func talk(t *testing.T, request func(io.Reader) (*msl.Response, error)) {
	t.Helper()
	body, ours := io.Pipe()
	go fmt.Fprintln(ours, "line 0")
	r, err := request(body)
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(r.Body)
	for i := range 5 {
		line, err := answers.ReadString('\n')
		if want := fmt.Sprintf("LINE %d\n", i); line != want {
			t.Fatalf("got %q, want %q, %v", line, want, err)
		}
		if i < 4 {
			fmt.Fprintf(ours, "line %d\n", i+1)
		}
	}
	ours.Close()
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("after the last line: %v", err)
	}
	if err := r.Body.Close(); err != nil {
		t.Error(err)
	}
}

// TestPeerWishes has the application set a service token for an answer that needs a
// handshake of its own first: the token goes with the answer.
func TestPeerWishes(t *testing.T) {
	one, two := newSides(t, "PSK", "RSA")
	first, second := connect(t, one, two)
	done := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.SetServiceToken("visit", []byte("1"), msl.BindNone)
		return echo(ctx, w, m)
	}, 1)
	r, _ := ask(t, first, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Recipient: "two", Body: msl.BytesBody([]byte("hello"))})
	if len(r.ServiceTokens) != 1 || r.ServiceTokens[0].Name != "visit" {
		t.Errorf("service tokens of the answer: %+v", r.ServiceTokens)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
