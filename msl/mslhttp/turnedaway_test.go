package mslhttp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// checkTurned compares the counts, of which those not named are zero.
func checkTurned(t *testing.T, c *Connections, want map[Reason]uint64) {
	t.Helper()
	got := c.TurnedAway()
	if len(got) != len(reasons) {
		t.Errorf("%d reasons are counted, of %d", len(got), len(reasons))
	}
	for why, times := range got {
		if times != want[why] {
			t.Errorf("%s: %d times, want %d", why, times, want[why])
		}
	}
}

func TestTurnedAwayConnections(t *testing.T) {
	t.Run("of clients", func(t *testing.T) { testTurnedAwayConnections(t, nil) })
	t.Run("of trusted proxies", func(t *testing.T) { testTurnedAwayConnections(t, networks("192.0.2.0/24")) })
}

func testTurnedAwayConnections(t *testing.T, proxies TrustedProxies) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &Connections{Max: 1, PerSource: -1, Trusted: proxies, Log: slog.New(slog.NewTextHandler(&log, nil))}
		b := newBounded(t, c, http.NotFoundHandler())
		fmt.Fprint(b.dialNow("192.0.2.1:1"), "POST /") // and no more
		b.dialNow("192.0.2.2:1")                       // waits
		synctest.Wait()
		for range 3 { // one too many to wait
			b.dialNow("192.0.2.3:1")
			synctest.Wait()
		}
		checkTurned(t, c, map[Reason]uint64{TooManyConnections: 3})
		time.Sleep(2 * connectionYouth) // the first makes room for the second
		synctest.Wait()
		checkTurned(t, c, map[Reason]uint64{TooManyConnections: 3, MadeRoom: 1})
		time.Sleep(2 * tellEvery)
		synctest.Wait()
		for _, line := range []string{
			`level=WARN msg="turned away" reason=connections times=1 source=192.0.2.3`,
			`level=WARN msg="turned away" reason=connections times=2 source=192.0.2.3`,
			`level=INFO msg="turned away" reason=room times=1 source=192.0.2.1`,
		} {
			if strings.Count(log.String(), line) != 1 {
				t.Errorf("log without one %s:\n%s", line, &log)
			}
		}
	})
}

// TestTurnedAwayWaiting: connections that wait too long, or until the end.
func TestTurnedAwayWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Connections{Max: 2, PerSource: -1}
		l := c.Listen(make(pipeListener))
		raw := make([]net.Conn, 3)
		for i := range raw {
			ours, theirs := net.Pipe()
			defer ours.Close()
			raw[i] = claimedConn{theirs, claimedAddr(fmt.Sprintf("192.0.2.%d:1", i))}
			conn, now := c.arrive(l.(*boundListener), raw[i])
			if now != (i < 2) {
				t.Fatalf("connection %d admitted: %v", i, now)
			}
			if now {
				(&underWay{conn: conn, source: "a"}).prove() // neither makes room
			}
		}
		l.Close()
		checkTurned(t, c, map[Reason]uint64{Stopping: 1})
	})
}

// watch has a server with one connection count for limits. The result is closed when it has: that is
// later than the end of the connection.
func watch(limits *Connections, server *http.Server) <-chan struct{} {
	limits.Watch(server)
	counted, next := make(chan struct{}), server.ConnState
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		if next(conn, state); state == http.StateClosed {
			close(counted)
		}
	}
	return counted
}

// exchangeOf sends text to a server with these limits, and returns the status of the answer.
func exchangeOf(t *testing.T, c *Connections, proxies TrustedProxies, text string) (status int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := http.NewServeMux()
	answers.Handle("/", &Handler{Server: &msl.Server{Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}}, MaxBody: 10})
	answers.Handle("/ws", &WebSocketHandler{})
	server := &http.Server{Handler: answers, ConnContext: c.Context, MaxHeaderBytes: 8 << 10}
	counted := watch(c, server)
	bound := c.Listen(l)
	if proxies != nil {
		bound = proxies.Listen(bound)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(bound) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, text)
	if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		io.Copy(io.Discard, response.Body)
		status = response.StatusCode
	}
	conn.Close()
	<-counted
	server.Close()
	<-done
	return status
}

func TestTurnedAwayRequests(t *testing.T) {
	loopback := TrustedProxies{netip.MustParsePrefix("127.0.0.0/8")}
	upgrade := "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, c := range []struct {
		name, text string
		proxies    TrustedProxies
		status     int
		why        Reason
	}{
		{"a GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil, 405, BadMethod},
		{"a long header", "POST / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", nil, 431, BadRequest},
		{"not HTTP", "\x16\x03\x01\x00\x05hello\r\n\r\n", nil, 400, BadRequest},
		{"without a host", "POST / HTTP/1.1\r\n\r\n", nil, 400, BadRequest},
		{"an expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", nil, 417, BadRequest},
		{"a WebSocket with a body", "GET /ws HTTP/1.1\r\n" + upgrade + "Content-Length: 1\r\n\r\nx", nil, 400, BadUpgrade},
		{"a WebSocket of another version", "GET /ws HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Version: 7\r\n\r\n", nil, 400, BadUpgrade},
		{"a WebSocket of another site", "GET /ws HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Version: 13\r\nOrigin: http://b\r\n\r\n", nil, 403, BadUpgrade},
		{"a long message", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n" + strings.Repeat(" ", 30), nil, 413, NoAnswer},
		{"no PROXY header", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", loopback, 0, BadProxyHeader},
		{"a bad PROXY header", "PROXY TCP9 a b\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", loopback, 0, BadProxyHeader},
		{"a good PROXY header", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", loopback, 405, BadMethod},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := &Connections{Trusted: c.proxies}
			if got := exchangeOf(t, limits, c.proxies, c.text); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			checkTurned(t, limits, map[Reason]uint64{c.why: 1})
			if source := limits.turned.source[c.why]; source != SourceOf(source+":1") {
				t.Errorf("the source is %q", source)
			}
		})
	}
}

// TestWhoseTooLong: the sender of a message that is too long is at fault, even if the application
// was reading it.
func TestWhoseTooLong(t *testing.T) {
	var served msl.Served
	handler := &Handler{
		Server: &msl.Server{
			Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{},
			Peers:  []msl.EntityScheme{&entityauth.None{Directory: &knownEntity{Identity: "x", Scheme: "NONE"}}},
			Report: func(_ context.Context, v msl.Served) { served = v },
		},
		Handle: func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.ReadAll(m.Body)
			return err
		},
		MaxBody: 1000,
	}
	message := `{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"x"}},"headerdata":"eyJtZXNzYWdlaWQiOjEsInJlbmV3YWJsZSI6ZmFsc2V9","signature":""}{"payload":"`
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(message+strings.Repeat("A", 5000))))
	if answer.Code != http.StatusRequestEntityTooLarge || served.Message == nil || served.Err == nil || served.Fault != msl.FaultPeer {
		t.Errorf("HTTP %d, fault %v: %v", answer.Code, served.Fault, served.Err)
	}
}

// TestNotTurnedAway: connections on which nobody asked for anything.
func TestNotTurnedAway(t *testing.T) {
	for name, proxies := range map[string]TrustedProxies{"plain": nil, "a proxy": {netip.MustParsePrefix("127.0.0.0/8")}} {
		limits := &Connections{Trusted: proxies}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.NotFoundHandler(), ConnContext: limits.Context}
		counted := watch(limits, server)
		bound := limits.Listen(l)
		if proxies != nil {
			bound = proxies.Listen(bound)
		}
		go server.Serve(bound)
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(name, err)
		}
		conn.Close()
		<-counted
		server.Close()
		checkTurned(t, limits, nil)
	}
}
