package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestShares has many programs send at once. They need only one session.
func TestShares(t *testing.T) {
	n := newNetwork(t)
	var renewed []string
	n.handler.Client.State = WatchState(&memory{}, func(r msl.ClientRecord) { renewed = append(renewed, r.KeyExchange) })
	n.serve()
	n.programs(40)
	if got := n.messages.Load(); got != 41 { // one is the handshake
		t.Errorf("%d messages for 40 requests", got)
	}
	n.programs(40, "Msl-Non-Replayable: true")
	if len(renewed) != 1 || renewed[0] != "ASYMMETRIC_WRAPPED" {
		t.Errorf("sessions: %q", renewed)
	}
	for _, e := range n.reported() {
		if e.Err != nil || e.Status != 0 || !e.Begun || e.Took <= 0 {
			t.Errorf("reported %+v", e)
		}
	}
}

// TestNoAnswerInTime has a server that accepts a message but does not answer.
func TestNoAnswerInTime(t *testing.T) {
	wait := make(chan struct{})
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-wait
	}))
	defer other.Close()
	defer close(wait)
	n := newNetwork(t)
	n.sendTo(other.URL)
	n.handler.Timeout = 300 * time.Millisecond
	n.serve()
	r, text := n.post("x")
	wanted{504, true, "deadline"}.check(t, r, text)
	if e := n.reported(); len(e) != 1 || e[0].Status != 504 || e[0].Err == nil || e[0].Begun {
		t.Errorf("reported %+v", e)
	}
}

// programs sends many requests at once.
func (n *network) programs(count int, headers ...string) {
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() { n.echoes(fmt.Sprintf("message %d %s", i, strings.Repeat("x", i*1000)), headers...) })
	}
	all.Wait()
}

// TestStreams sends more than is held in memory anywhere, and gets an answer that begins
// before the request ends.
func TestStreams(t *testing.T) {
	n := newNetwork(t).serve()
	n.echoes(strings.Repeat("0123456789abcdef", 180_000))
	n.echoes("")
	in, out := io.Pipe()
	begun := make(chan struct{})
	go func() {
		out.Write(make([]byte, 1<<20))
		select {
		case <-begun:
			out.Close()
		case <-time.After(30 * time.Second):
			out.CloseWithError(errors.New("no answer came"))
		}
	}()
	response, err := n.web.Post(n.base, "text/plain", in)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadFull(response.Body, make([]byte, 1<<19)); err != nil {
		t.Fatal(err)
	}
	close(begun)
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != 1<<19 {
		t.Errorf("%d bytes more, error %v", n, err)
	}
}

// TestUsers sends for users known to the agent but not necessarily permitted by the
// server.
func TestUsers(t *testing.T) {
	n := newNetwork(t)
	n.handler.Users = []string{"ada@example.com", "eve@example.com"}
	n.serve()
	n.echoes("for a user", "Msl-User: ada@example.com")
	n.echoes("for a user", "Msl-User: ada%40example.com", "Msl-Non-Replayable: true")
	if r, text := n.post("x", "Msl-No-Answer: true"); r.StatusCode != http.StatusAccepted || text != "" {
		t.Errorf("no answer: status %d, %q", r.StatusCode, text)
	}
	r, text := n.post("x", "Msl-User: eve@example.com")
	wanted{403, false, ""}.check(t, r, text)
	if !strings.Contains(text, `"response":"USERDATA_REAUTH"`) && !strings.Contains(text, `"response":"USER_REAUTH"`) {
		t.Errorf("a wrong password: %s", text)
	}
	n.echoes("and all goes on")
	n.handler.User = "bob" // nothing is under way
	if _, text := n.post("x", "Msl-User: bob"); strings.Contains(text, "does not send for") {
		t.Errorf("its own user: %s", text)
	}
}

// TestServerIsAway stops the server and starts it again.
func TestServerIsAway(t *testing.T) {
	n := newNetwork(t).serve()
	n.echoes("before")
	address := n.answers.Listener.Addr().String()
	n.answers.Close()
	r, text := n.post("meanwhile")
	wanted{502, true, "mslhttp"}.check(t, r, text)
	again := &httptest.Server{Listener: porttest.Listen(t, address), Config: &http.Server{Handler: n.answers.Config.Handler}}
	again.Start()
	defer again.Close()
	n.echoes("after")
}

// TestRevoked has a server that refuses the device.
func TestRevoked(t *testing.T) {
	n := newNetwork(t).serve()
	n.echoes("before")
	n.state.Revoke("device")
	r, text := n.post("revoked")
	wanted{403, false, "REVOKED"}.check(t, r, text)
	if !strings.Contains(text, `"name":"MASTERTOKEN_IDENTITY_REVOKED"`) || !strings.Contains(text, `"code":`) {
		t.Errorf("the MSL error: %s", text)
	}
}

// TestDescribe looks at the headers of an answer.
func TestDescribe(t *testing.T) {
	for _, c := range []struct{ identity, want string }{{"", ""}, {"server", "server"}, {"a\r\nb", "a%0D%0Ab"}} {
		h := http.Header{}
		describe(h, &msl.Response{Identity: c.identity, MessageID: 1 << 53})
		if h.Get("Msl-Identity") != c.want || h.Get("Msl-Message-Id") != "9007199254740992" {
			t.Errorf("%q: %v", c.identity, h)
		}
	}
}

// TestNoMessage has something other than a server answer.
func TestNoMessage(t *testing.T) {
	status, page := 0, ""
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(status)
		io.WriteString(w, page)
	}))
	defer other.Close()
	n := newNetwork(t)
	n.sendTo(other.URL)
	n.serve()
	for _, test := range []struct {
		answer int
		page   string
		want   wanted
	}{
		{503, "", wanted{503, true, "try again later"}}, {404, "", wanted{502, false, "check that the URL"}},
		{200, "{", wanted{502, false, "message"}}, {200, "<!doctype html><title>Sign in</title>", wanted{502, false, "HTML"}},
	} {
		status, page = test.answer, test.page
		r, text := n.post("x")
		test.want.check(t, r, text)
		if test.answer == 503 && r.Header.Get("Retry-After") != "17" {
			t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
		}
		if e := n.reported(); len(e) != 1 || e[0].Status != test.want.status || e[0].Err == nil || e[0].Begun {
			t.Errorf("reported %+v", e)
		}
	}
}

// TestPlaces lets a request wait in vain for another one to finish.
func TestPlaces(t *testing.T) {
	n := newNetwork(t)
	n.handler.Requests, n.handler.Timeout = 1, 300*time.Millisecond
	n.serve()
	leave, err := n.handler.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, text := n.post("no place")
	wanted{503, true, "1 other requests are under way"}.check(t, r, text)
	leave()
	if n.messages.Load() != 0 {
		t.Error("the request was sent")
	}
	n.handler.Timeout = 0 // nothing is under way
	n.echoes("a place")
}

// TestGivenUp has a program close its connection: only Report is called.
func TestGivenUp(t *testing.T) {
	arrived, wait := make(chan struct{}), make(chan struct{})
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(arrived); <-wait }))
	defer other.Close()
	defer close(wait)
	n := newNetwork(t)
	n.sendTo(other.URL)
	told := make(chan Exchange, 1)
	n.handler.Report = func(_ context.Context, e Exchange) { told <- e }
	n.serve()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.base, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.web.Do(r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if e := <-told; e.Status != 0 || e.Err == nil || e.Begun {
		t.Errorf("reported %+v", e)
	}
}
