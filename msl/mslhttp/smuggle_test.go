package mslhttp

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

const unit = 100 * time.Millisecond

// noneMessage returns the header of a message of an entity that proves nothing. member
// is headerdata or errordata.
func noneMessage(member, inside string) string {
	return fmt.Sprintf(`{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"device"}},%q:%q,"signature":""}`,
		member, base64.StdEncoding.EncodeToString([]byte(inside)))
}

func noneChunk(inside string) string {
	return fmt.Sprintf(`{"payload":%q,"signature":""}`, base64.StdEncoding.EncodeToString([]byte(inside)))
}

const (
	headerInside = `{"messageid":1,"renewable":false,"handshake":false}`
	lastInside   = `{"sequencenumber":1,"messageid":1,"endofmsg":true,"data":"aGVsbG8="}`
	firstInside  = `{"sequencenumber":1,"messageid":1,"data":"aGVsbG8="}`
)

// noneServer answers any entity that names itself, without proof.
func noneServer(t *testing.T) *msl.Server {
	t.Helper()
	s := &msl.Server{Name: "server", Local: &entityauth.NoneEntity{Identity: "server"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Issuer: &msl.Issuer{}, State: &msl.MemoryState{}}
	t.Cleanup(func() { s.Close() })
	return s
}

// recovers wraps a handler as some middleware does.
func recovers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }()
		next.ServeHTTP(w, r)
	})
}

// A wrapped writer wraps that of net/http as other middleware does.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestNothingSmuggled leaves the body of a request unread in every possible way, and
// sends the rest of it in the form of a request, which must never be served (RFC 9112,
// sections 9.3 and 9.6).
func TestNothingSmuggled(t *testing.T) {
	message := noneMessage("headerdata", headerInside) + noneChunk(lastInside)
	half := noneMessage("headerdata", headerInside) + noneChunk(firstInside)
	read := func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	}
	unread := func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
		_, err := io.WriteString(w, "answer")
		return err
	}
	broken := &msl.Server{Local: broken{&entityauth.NoneEntity{}}, Issuer: &msl.Issuer{}}
	defer broken.Close()
	var all sync.WaitGroup
	for name, test := range map[string]struct {
		method, body string
		server       *msl.Server
		handle       msl.Handler
		max          int64
		timeout      time.Duration
		wrap         func(http.Handler) http.Handler
	}{
		"message read, more to come": {body: message, handle: read},
		"message unread":             {body: half, handle: unread},
		"half of it read":            {body: half, handle: read},
		"no reply":                   {body: half, handle: func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrNoReply }},
		"handler fails":              {body: half, handle: func(context.Context, *msl.ResponseWriter, *msl.Message) error { return errors.New("no") }},
		"handler fails in the middle": {body: half, handle: func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
			w.Flush()
			return errors.New("no")
		}},
		"handler panics":       {body: half, handle: func(context.Context, *msl.ResponseWriter, *msl.Message) error { panic(http.ErrAbortHandler) }},
		"panic that is caught": {body: half, handle: func(context.Context, *msl.ResponseWriter, *msl.Message) error { panic("caught") }, wrap: recovers},
		"flushed, then a panic that is caught": {body: half, wrap: recovers,
			handle: func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error { w.Flush(); panic("caught") }},
		"wrapped writer": {body: half, handle: unread, wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapped{w}, r) })
		}},
		"error message, answered 204": {body: noneMessage("errordata", `{"messageid":1,"errorcode":1}`)},
		"garbage":                     {body: `{]`},
		"nothing at all":              {body: ``},
		"no key to answer with, 503":  {body: `{]`, server: broken},
		"truncated":                   {body: noneMessage("headerdata", headerInside)[:40]},
		"too long":                    {body: half, handle: read, max: 300},
		"too long, unread":            {body: half, handle: unread, max: 300},
		"not by POST":                 {method: "PUT", body: half},
		"GET":                         {method: "GET", body: half},
	} {
		for _, proto := range []string{"1.1", "1.0", "1.1 chunked", "1.1 expecting"} {
			all.Go(func() { // they wait most of the time
				h := &Handler{Server: test.server, Handle: test.handle, MaxBody: test.max, Timeout: 2 * unit}
				if h.Server == nil {
					h.Server = noneServer(t)
				}
				if n := smuggle(t, h, test.wrap, cmp.Or(test.method, http.MethodPost), test.body, proto); n != 0 {
					t.Errorf("%s, HTTP %s: %d requests were smuggled", name, proto, n)
				}
			})
		}
	}
	all.Wait()
}

// smuggle sends part of a body, and more of it when the answer has come or the time
// for the exchange is over. It returns how many requests the server saw in it.
func smuggle(t *testing.T, h http.Handler, wrap func(http.Handler) http.Handler, method, body, proto string) int64 {
	t.Helper()
	if wrap != nil {
		h = wrap(h)
	}
	var smuggled atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			smuggled.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * unit))
	version, how, _ := strings.Cut(proto, " ")
	rest := "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	header := fmt.Sprintf("Content-Length: %d\r\n", len(body)+len(rest)*3)
	switch how {
	case "chunked":
		header, body = "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s", len(body)+len(rest)*3, body)
	case "expecting":
		header += "Expect: 100-continue\r\n"
	}
	fmt.Fprintf(c, "%s / HTTP/%s\r\nHost: x\r\nConnection: keep-alive\r\n%s\r\n%s", method, version, header, body)
	time.Sleep(unit / 2) // in time, where the body is still being read
	io.WriteString(c, rest)
	time.Sleep(4 * unit) // and after the time for it
	for range 2 {
		io.WriteString(c, rest)
	}
	_, _ = io.Copy(io.Discard, bufio.NewReader(c)) // until the server closes
	return smuggled.Load()
}

// TestConnectionReused shows that a connection serves the next request if the body of
// the last one was read.
func TestConnectionReused(t *testing.T) {
	h := &Handler{Server: noneServer(t), Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	}}
	s := httptest.NewServer(h)
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	in, message := bufio.NewReader(c), noneMessage("headerdata", headerInside)+noneChunk(lastInside)
	for range 3 {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(message), message)
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 || r.ContentLength < 0 || r.Close || !strings.Contains(string(answer), "payload") {
			t.Errorf("status %d, length %d, closing %v, error %v: %s", r.StatusCode, r.ContentLength, r.Close, err, answer)
		}
	}
}
