package msl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A writingPeer behaves like a peer of the reference stack: it writes all of a message
// before it reads, shows no token of this side, and delivers keys when asked.
type writingPeer struct {
	t      *testing.T
	conn   net.Conn
	in     *json.Decoder
	server serverPublic
	keys   rawKeys // of the session that it delivers
	token  object
	now    int64
	who    object // how it names itself, by default by PSK
}

func newWritingPeer(t *testing.T, r *recorded, conn net.Conn) *writingPeer {
	keys := rawKeys{"server1_1", random(16), random(32)}
	return &writingPeer{who: byPSK("client1"), t: t, conn: conn, in: json.NewDecoder(conn), server: r.public(), keys: keys, now: r.clock().Unix(), token: rawKeys{"peer", random(16), random(32)}.token(with(masterMembers, object{"renewalwindow": 1800000000, "expiration": 1900000000}), "sessiondata", object{"x": 1})}
}

func (p *writingPeer) write(message []byte) {
	if _, err := p.conn.Write(message); err != nil {
		p.t.Fatal(err)
	}
}

// request is a message of that much data, in chunks of 50,000 bytes.
func (p *writingPeer) request(id int64, data []byte) []byte {
	var chunks []any
	for sequence := 1; len(data) > 0 || sequence == 1; sequence++ {
		n := min(len(data), 50000)
		chunks = append(chunks, object{"sequencenumber": sequence, "messageid": id, "data": data[:n], "endofmsg": n == len(data)})
		data = data[n:]
	}
	return p.protection().message(p.who, object{"messageid": id, "renewable": false, "timestamp": p.now}, chunks...)
}

// A peerHeader is the part of a header that the peer reads.
type peerHeader struct {
	MessageID       int64
	Handshake       bool
	KeyResponseData json.RawMessage
	KeyRequestData  []struct {
		Scheme  string
		KeyData struct {
			KeyPairID string
			PublicKey []byte
		}
	}
}

// header reads the next header, or an error.
func (p *writingPeer) header() (h peerHeader, refusal *answerError) {
	var outer wireHeader
	if err := p.in.Decode(&outer); err != nil {
		p.t.Fatalf("header: %v", err)
	}
	var err error
	inside := outer.HeaderData
	switch {
	case outer.ErrorData != nil:
		refusal, inside = &answerError{}, outer.ErrorData
		if err := errors.Join(p.server.verify(inside, *outer.Signature), json.Unmarshal(inside, refusal)); err != nil {
			p.t.Fatalf("error header: %v", err)
		}
		return h, refusal
	case outer.MasterToken != nil:
		err = p.keys.verify(inside, *outer.Signature)
		if err == nil {
			inside, err = p.keys.decrypt(inside)
		}
	default:
		err = p.server.verify(inside, *outer.Signature)
	}
	if err := errors.Join(err, json.Unmarshal(inside, &h)); err != nil {
		p.t.Fatalf("header: %v", err)
	}
	return h, nil
}

// give answers a handshake with keys.
func (p *writingPeer) give(h peerHeader) {
	if len(h.KeyRequestData) != 1 || !h.Handshake {
		p.t.Fatalf("no handshake: %+v", h)
	}
	request := h.KeyRequestData[0]
	public, err := x509.ParsePKIXPublicKey(request.KeyData.PublicKey)
	if err != nil {
		p.t.Fatal(err)
	}
	wrap := func(raw []byte) []byte {
		return must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), raw, nil))
	}
	p.write(p.protection().message(p.who, object{"messageid": h.MessageID + 1, "renewable": false, "handshake": false, "timestamp": p.now,
		"keyresponsedata": object{"mastertoken": p.token, "scheme": request.Scheme, "keydata": object{
			"keypairid": request.KeyData.KeyPairID, "encryptionkey": wrap(p.keys.encryption), "hmackey": wrap(p.keys.mac)}}}))
}

// answer reads the chunks of the answer.
func (p *writingPeer) answer() []byte {
	var data []byte
	for n := 1; ; n++ {
		var outer struct{ Payload, Signature []byte }
		if err := p.in.Decode(&outer); err != nil {
			p.t.Fatalf("chunk %d: %v", n, err)
		}
		inside, err := p.keys.decrypt(outer.Payload)
		var c answerChunk
		if err := errors.Join(err, p.keys.verify(outer.Payload, outer.Signature), json.Unmarshal(inside, &c)); err != nil || c.SequenceNumber != int64(n) {
			p.t.Fatalf("chunk %d: %+v, %v", n, c, err)
		}
		if data = append(data, c.Data...); c.EndOfMsg {
			return data
		}
	}
}

// answeringHandlers are the ways to answer a request while it is read.
var answeringHandlers = map[string]msl.Handler{
	"io.Copy": echo,
	"read and write": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for p := make([]byte, 10000); ; {
			n, err := m.Body.Read(p)
			if _, err := w.Write(p[:n]); err != nil {
				return err
			}
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	},
	"flush": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for {
			_, err := io.CopyN(w, m.Body, 30000)
			if err := w.Flush(); err != nil {
				return err
			}
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	},
	"WriteTo": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := m.Body.(io.WriterTo).WriteTo(struct{ io.Writer }{w})
		return err
	},
	"two goroutines": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		r, to := io.Pipe()
		go func() {
			_, err := io.Copy(to, m.Body)
			to.CloseWithError(err)
		}()
		_, err := io.Copy(w, r)
		return err
	},
	"write first": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if _, err := w.Write(make([]byte, 200000)); err != nil {
			return err
		}
		data, err := io.ReadAll(m.Body)
		w.Write(data)
		return err
	},
}

// racedHandlers are all answeringHandlers, or with the race detector those that read and write
// in two goroutines: one of their own, or one of the writer's.
func racedHandlers() map[string]msl.Handler {
	if !raceDetector {
		return answeringHandlers
	}
	return map[string]msl.Handler{"io.Copy": echo, "two goroutines": answeringHandlers["two goroutines"]}
}

// recordedConn is this side of a connection to a writing peer.
func recordedConn(t *testing.T, held int) (*msl.Conn, *writingPeer) {
	r := newRecorded(t)
	r.server.Limits.Held = held
	client := &msl.Client{Local: r.server.Local, KeyExchanges: []msl.Offerer{wrappedWith(t, r.store)}, Time: r.clock}
	t.Cleanup(func() { client.Close() })
	ours, theirs := pipe(t)
	soon := time.Now().Add(2 * time.Minute)
	ours.SetDeadline(soon)
	theirs.SetDeadline(soon)
	return msl.NewConn(ours, r.server, client), newWritingPeer(t, r, theirs)
}

// serve is serveAll, whose failure ends the connection for the peer.
func (p *writingPeer) serve(c *msl.Conn, handle msl.Handler, n int) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := <-serveAll(c, handle, n)
		if err != nil {
			p.conn.Close()
		}
		done <- err
	}()
	p.t.Cleanup(func() {
		if p.t.Failed() {
			select {
			case err := <-done:
				p.t.Logf("server: %v", err)
			case <-time.After(time.Second):
				p.t.Log("server: it goes on")
			}
		}
	})
	return done
}

// TestHalfDuplexPeer answers peers that write everything before they read, on a
// connection without any buffer: nothing is lost, and neither side waits for ever.
func TestHalfDuplexPeer(t *testing.T) {
	for name, handle := range racedHandlers() {
		sizes := []int{0, 65536, 320000}
		if name == "io.Copy" {
			sizes = append(sizes, int(scaled(8<<20)))
		}
		if raceDetector {
			sizes = sizes[2:3]
		}
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				conn, peer := recordedConn(t, 0)
				done := peer.serve(conn, handle, 2)
				data := random(size)
				want := data
				if name == "write first" {
					want = append(make([]byte, 200000), data...)
				}
				for id := int64(1); id < 200; id += 100 {
					peer.write(peer.request(id, data))
					if id == 1 { // its token is valid for the second one
						h, _ := peer.header()
						peer.give(h)
					}
					if h, _ := peer.header(); h.Handshake {
						t.Fatal("another handshake")
					}
					if got := peer.answer(); !bytes.Equal(got, want) {
						t.Errorf("sent %d bytes, got %d", len(want), len(got))
					}
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestHalfDuplexPeerTooLong has answers that grow over the bound while the request
// is unread: both sides get an error, and the connection stays usable.
func TestHalfDuplexPeerTooLong(t *testing.T) {
	conn, peer := recordedConn(t, 100000)
	answers := make(chan error, 1)
	done := peer.serve(conn, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		err := echo(ctx, w, m)
		answers <- err
		return err
	}, 2)
	peer.write(peer.request(1, random(320000)))
	_, refusal := peer.header()
	if refusal == nil || refusal.InternalCode != msl.ErrMSLCommsFailure.Internal() || *refusal.MessageID != 2 {
		t.Errorf("peer got %+v", refusal)
	}
	if err := <-answers; !errors.Is(err, msl.ErrMSLCommsFailure) {
		t.Errorf("handler got %v", err)
	}
	data := random(90000)
	peer.write(peer.request(50, data))
	h, _ := peer.header()
	peer.give(h)
	peer.header()
	if got := peer.answer(); !bytes.Equal(got, data) || <-answers != nil {
		t.Errorf("afterwards: %d bytes", len(got))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestHalfDuplexPeerRefused refuses and ignores long requests of such a peer.
func TestHalfDuplexPeerRefused(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	answers := []error{msl.ErrRejectEntity, nil, msl.ErrNoReply, msl.ErrRejectEntity}
	done := peer.serve(conn, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		err := answers[0]
		answers = answers[1:]
		w.Write(make([]byte, 100000))
		return err
	}, 5)
	long := random(300000)
	wantRefusal := func(id int64, code msl.Code) {
		t.Helper()
		if _, e := peer.header(); e == nil || e.InternalCode != code.Internal() || *e.MessageID != id+1 {
			t.Errorf("got %+v, want %v", e, code)
		}
	}
	peer.write(peer.request(1, long))
	wantRefusal(1, msl.ErrEntityRejectedByApp)
	peer.write(peer.request(10, long))
	h, _ := peer.header()
	peer.give(h)
	peer.header()
	if n := len(peer.answer()); n != 100000 {
		t.Errorf("answer of %d bytes", n)
	}
	peer.write(peer.request(20, long))
	peer.write(peer.request(30, long))
	wantRefusal(30, msl.ErrEntityRejectedByApp)
	peer.write(pskClient1.message(byPSK("client1"), one(object{"handshake": true}))) // without keys
	wantRefusal(1, msl.ErrHandshakeDataMissing)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestConnInHandler uses the connection of a request in its handler: an error, and
// nothing of the request is lost.
func TestConnInHandler(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	done := peer.serve(conn, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := conn.Request(ctx, &msl.Request{})
		if err == nil || conn.Send(ctx, &msl.Request{}) == nil || conn.Serve(ctx, echo) == nil {
			t.Error("the connection was used")
		}
		return echo(ctx, w, m)
	}, 1)
	data := random(150000)
	peer.write(peer.request(1, data))
	h, _ := peer.header()
	peer.give(h)
	peer.header()
	if got := peer.answer(); !bytes.Equal(got, data) {
		t.Errorf("%d bytes", len(got))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A badWriter takes less than it is given.
type badWriter struct {
	n   int
	err error
}

func (w badWriter) Write(p []byte) (int, error) { return w.n, w.err }

// TestBodyWriteTo gives a body to writers that take a part, and reads on.
func TestBodyWriteTo(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	data := random(120000)
	done := peer.serve(conn, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		body := m.Body.(io.WriterTo)
		for _, bad := range []badWriter{{-1, io.ErrClosedPipe}, {0, io.ErrClosedPipe}, {0, nil}} {
			if n, err := body.WriteTo(bad); err == nil || n != 0 {
				t.Errorf("%+v: %d, %v", bad, n, err)
			}
		}
		if n, err := body.WriteTo(badWriter{10, io.ErrClosedPipe}); n != 10 || err != io.ErrClosedPipe {
			t.Errorf("%d, %v", n, err)
		}
		if n, err := body.WriteTo(badWriter{10, nil}); n != 10 || err != io.ErrShortWrite {
			t.Errorf("%d, %v", n, err)
		}
		if rest, err := io.ReadAll(m.Body); err != nil || !bytes.Equal(rest, data[20:]) {
			t.Errorf("then %d bytes, %v", len(rest), err)
		}
		return msl.ErrNoReply
	}, 1)
	peer.write(peer.request(1, data))
	if err := <-done; err != nil {
		t.Error(err)
	}
}
