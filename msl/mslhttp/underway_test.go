package mslhttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A message of a proven sender keeps its connection only while it makes progress or the
// application is working on it, since a replayed header proves a sender just as well.
func TestStalledMessageKeepsNoConnection(t *testing.T) {
	for path, kept := range map[string]bool{"/stalls": false, "/drips": true, "/works": true, "/two": true} {
		synctest.Test(t, func(t *testing.T) { checkStalled(t, path, kept) })
	}
}

func checkStalled(t *testing.T, path string, kept bool) {
	t.Cleanup(func() { time.Sleep(time.Second) }) // net/http lingers on what it closes
	over := make(chan bool)
	b := newBounded(t, &Connections{Max: 2, PerSource: 2}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := beginExchange(r.Context(), "")
		defer u.end()
		s := (&Handler{Timeout: time.Hour}).open(w, r)
		defer s.end()
		s.exchange = u
		s.Proven()
		if r.URL.Path == "/two" {
			other, _ := beginExchange(r.Context(), "")
			other.prove()
			defer other.end()
		}
		if r.URL.Path == "/works" {
			<-over
		} else {
			io.Copy(io.Discard, s)
		}
	}))
	defer close(over)
	c := b.dial("192.0.2.1:1")
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", path)
	synctest.Wait()
	for range 20 {
		if path == "/drips" {
			io.WriteString(c, "x")
		}
		time.Sleep(time.Second)
	}
	b.dial("192.0.2.1:1")
	if path == "/drips" {
		io.WriteString(c, "x")
	}
	b.dial("192.0.2.1:1")
	b.checkOpen(path, kept, c)
}

// A stranger's request is not interrupted to make room once it was read completely:
// that would end the context of an application that may have acted.
func TestInterruptSparesWhatWasRead(t *testing.T) {
	acted, proceed := make(chan error, 2), make(chan bool)
	h := &Handler{Server: &msl.Server{
		Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}, Peers: []msl.EntityScheme{&entityauth.None{Directory: &knownEntity{Identity: "x", Scheme: "NONE"}}},
		Limits: msl.Limits{Header: 1 << 20, Chunk: 1 << 20, Held: 1, Unproven: 1},
	}, Handle: func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if _, err := io.Copy(io.Discard, m.Body); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-proceed:
		}
		acted <- context.Cause(ctx)
		return nil
	}}
	server := httptest.NewServer(h)
	defer server.Close()
	b64 := base64.StdEncoding.EncodeToString
	inside := `{"sequencenumber":1,"messageid":1,"endofmsg":true,"data":"` + b64(make([]byte, 400<<10)) + `"}`
	message := `{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"x"}},"headerdata":"eyJtZXNzYWdlaWQiOjEsInJlbmV3YWJsZSI6ZmFsc2V9","signature":""}{"payload":"` + b64([]byte(inside)) + `","signature":""}`
	status := make(chan int, 1)
	go func() {
		r, err := http.Post(server.URL, "", bytes.NewReader([]byte(message)))
		if err != nil {
			status <- 0
			return
		}
		r.Body.Close()
		status <- r.StatusCode
	}()
	time.Sleep(1200 * time.Millisecond)
	for range 3 {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n{\"x\":\"%s", bytes.Repeat([]byte("x"), 900<<10))
	}
	time.Sleep(700 * time.Millisecond)
	close(proceed)
	if cause := <-acted; cause != nil {
		t.Errorf("the application's context ended: %v", cause)
	}
	if got := <-status; got != http.StatusOK {
		t.Errorf("HTTP %d", got)
	}
}
