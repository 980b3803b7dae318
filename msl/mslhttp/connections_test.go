package mslhttp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A claimedAddr is the address that a connection of a test comes from.
type claimedAddr string

func (claimedAddr) Network() string  { return "tcp" }
func (a claimedAddr) String() string { return string(a) }

type claimedConn struct {
	net.Conn
	from claimedAddr
}

func (c claimedConn) RemoteAddr() net.Addr { return c.from }

// A bounded is a server whose connections are counted, over pipes.
type bounded struct {
	t      *testing.T
	pipes  pipeListener
	bounds *Connections
}

func newBounded(t *testing.T, bounds *Connections, handler http.Handler) *bounded {
	b := &bounded{t, make(pipeListener), bounds}
	server := &http.Server{Handler: handler, ConnContext: bounds.Context}
	bounds.Watch(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(bounds.Listen(b.pipes)) }()
	t.Cleanup(func() { server.Close(); <-done })
	return b
}

// dial makes a connection, some time after the last one.
func (b *bounded) dial(from string) net.Conn {
	b.t.Helper()
	time.Sleep(2 * connectionYouth)
	return b.dialNow(from)
}

func (b *bounded) dialNow(from string) net.Conn {
	b.t.Helper()
	ours, theirs := net.Pipe()
	b.t.Cleanup(func() { ours.Close() })
	select {
	case b.pipes <- claimedConn{theirs, claimedAddr(from)}:
	case <-time.After(5 * time.Second):
		b.t.Fatal("the server takes no connections")
	}
	return ours
}

// isOpen reports whether the other side keeps an inactive connection open.
func isOpen(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func (b *bounded) checkOpen(what string, want bool, conns ...net.Conn) {
	b.t.Helper()
	for i, c := range conns {
		if isOpen(c) != want {
			b.t.Errorf("%s, connection %d: open is %v", what, i, !want)
		}
	}
}

func TestConnectionsPerSource(t *testing.T) {
	for name, network := range map[string]func(host int) string{
		"IPv4":              func(int) string { return "192.0.2.1:4000" },
		"one IPv6 network":  func(host int) string { return fmt.Sprintf("[2001:db8::%x]:4000", host) },
		"IPv4 mapped":       func(int) string { return "[::ffff:192.0.2.1]:4000" },
		"other port, a LAN": func(host int) string { return fmt.Sprintf("10.0.0.1:%d", 4000+host) },
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBounded(t, &Connections{Max: 10, PerSource: 3}, http.NotFoundHandler())
			other := b.dial("198.51.100.1:4000")
			var conns []net.Conn
			for i := range 5 {
				conns = append(conns, b.dial(network(i)))
			}
			b.checkOpen(name+": the oldest of the source", false, conns[:2]...)
			b.checkOpen(name+": the others", true, append(conns[2:], other)...)
		})
	}
}

func TestConnectionsInAll(t *testing.T) { synctest.Test(t, checkConnectionsInAll) }

func checkConnectionsInAll(t *testing.T) {
	b := newBounded(t, &Connections{Max: 4, PerSource: -1}, http.NotFoundHandler())
	var conns []net.Conn
	for i := range 6 {
		conns = append(conns, b.dial(fmt.Sprintf("192.0.2.%d:4000", i)))
	}
	b.checkOpen("the oldest", false, conns[:2]...)
	b.checkOpen("the others", true, conns[2:]...)
	conns[2].Close()
	synctest.Wait()
	b.dial("192.0.2.99:1")
	b.checkOpen("in a free place", true, conns[3:]...)
	unbounded := newBounded(t, &Connections{Max: -1}, http.NotFoundHandler())
	for range 20 {
		conns = append(conns, unbounded.dial("192.0.2.1:1"))
	}
	unbounded.checkOpen("without a bound", true, conns[6:]...)
}

// A new connection waits its turn if the others are too young to be closed, but not
// forever.
func TestConnectionsWait(t *testing.T) { synctest.Test(t, checkConnectionsWait) }

func checkConnectionsWait(t *testing.T) {
	b := newBounded(t, &Connections{Max: 4, PerSource: 2}, http.NotFoundHandler())
	ask := func(c net.Conn) (answered chan bool) {
		answered = make(chan bool, 1)
		go func() {
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, err := http.ReadResponse(bufio.NewReader(c), nil)
			answered <- err == nil
		}()
		return answered
	}
	open := func(n int) (conns []net.Conn) {
		for range n {
			conns = append(conns, b.dialNow("192.0.2.1:1"))
		}
		return conns
	}
	conns := open(4)
	first, second := ask(conns[2]), ask(conns[3])
	b.checkOpen("one more than may wait", false, open(1)...)
	b.checkOpen("another source", true, b.dialNow("192.0.2.2:1"))
	began := time.Now()
	if !<-first || !<-second {
		t.Error("who waits is not served")
	}
	if waited := time.Since(began); waited > 2*connectionYouth || waited < connectionYouth/2 {
		t.Errorf("served after %v", waited)
	}
	b.checkOpen("those who were there", false, conns[:2]...)
}

// A message of a sender that proved its identity keeps its connection until it is over.
func TestConnectionsKeepProven(t *testing.T) { synctest.Test(t, checkConnectionsKeepProven) }

func checkConnectionsKeepProven(t *testing.T) {
	proceed, arrived := map[string]chan bool{"/proven": make(chan bool), "/other": make(chan bool), "/": make(chan bool)}, make(chan bool)
	bounds := &Connections{Max: 2, PerSource: 2}
	b := newBounded(t, bounds, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		exchange, _ := beginExchange(r.Context(), "")
		defer exchange.end()
		if r.URL.Path != "/" {
			exchange.prove()
		}
		arrived <- true
		<-proceed[r.URL.Path]
	}))
	ask := func(path string) net.Conn {
		c := b.dial("192.0.2.1:1")
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", path)
		<-arrived
		return c
	}
	proven, stranger := ask("/proven"), ask("/")
	third := b.dial("192.0.2.1:1")
	b.checkOpen("a stranger's message", false, stranger)
	b.checkOpen("a proven message, and a new one", true, proven, third)
	proceed["/"] <- true
	ask("/other")
	b.checkOpen("a new connection with nothing on it", false, third)
	late := b.dial("192.0.2.1:1")
	time.Sleep(2 * connectionPatience)
	b.checkOpen("one that there is no room for", false, late)
	b.checkOpen("the first of all", true, proven)
	proceed["/other"] <- true
	proceed["/proven"] <- true
	proven.SetReadDeadline(time.Time{})
	if response, err := http.ReadResponse(bufio.NewReader(proven), nil); err != nil || response.StatusCode != 200 {
		t.Errorf("the answer on the kept connection: %v, %v", response, err)
	}
}

// Behind a trusted proxy, exchanges are counted instead of connections.
func TestExchangesPerSource(t *testing.T) { synctest.Test(t, checkExchangesPerSource) }

func checkExchangesPerSource(t *testing.T) {
	bounds := &Connections{Max: 20, PerSource: 2, Trusted: networks("10.0.0.0/8")}
	proceed := make(chan bool)
	handler := &Handler{
		Server: &msl.Server{Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}, Peers: []msl.EntityScheme{&entityauth.None{Directory: &knownEntity{Identity: "x", Scheme: "NONE"}}}},
		Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error { <-proceed; return nil },
		Source: bounds.Trusted.Source,
	}
	b := newBounded(t, bounds, handler)
	message := `{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"x"}},"headerdata":"eyJtZXNzYWdlaWQiOjEsInJlbmV3YWJsZSI6ZmFsc2V9","signature":""}`
	ask := func(source string) (status chan int) {
		status = make(chan int, 1)
		c := b.dial("10.1.1.1:4000")
		go func() {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n%s", source, len(message), message)
			if r, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				status <- r.StatusCode
			}
		}()
		return status
	}
	waiting := []chan int{ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")}
	synctest.Wait()
	if status := <-ask("192.0.2.1"); status != http.StatusServiceUnavailable {
		t.Errorf("one too many: HTTP %d", status)
	}
	checkTurned(t, bounds, map[Reason]uint64{TooManyExchanges: 1})
	close(proceed)
	for i, w := range waiting {
		if status := <-w; status != http.StatusOK {
			t.Errorf("exchange %d: HTTP %d", i, status)
		}
	}
	if status := <-ask("192.0.2.1"); status != http.StatusOK {
		t.Errorf("afterwards: HTTP %d", status)
	}
}

// Counting takes place below TLS and the PROXY protocol, and finds its connections
// through them.
func TestConnectionsBelow(t *testing.T) {
	bounds := &Connections{Trusted: networks("127.0.0.0/8")}
	a := newAuthority(t)
	proven := make(chan bool, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := beginExchange(r.Context(), "198.51.100.7")
		proven <- u.conn != nil && u.source == "198.51.100.7"
		u.end()
	})
	server := httptest.NewUnstartedServer(handler)
	var err error
	server.Listener, err = (&TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}).Listen(networks("127.0.0.0/8").Listen(bounds.Listen(server.Listener)))
	if err != nil {
		t.Fatal(err)
	}
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return TLSContext(bounds.Context(ctx, c), c) }
	server.Start()
	defer server.Close()
	raw, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	io.WriteString(raw, "PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n")
	client := &TLSClient{Roots: a.pool(), ServerName: "server"}
	dialer, err := client.dialer()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.over(context.Background(), raw, "server")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(conn, strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Error(err)
	}
	if !<-proven {
		t.Error("the exchange does not know its connection")
	}
	conn.Close()
}

// A stranger that slowly sends a large message makes room for others, and gets HTTP
// 503.
func TestSlowStrangerMakesRoom(t *testing.T) {
	server := httptest.NewServer(&Handler{Server: &msl.Server{
		Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}, Peers: []msl.EntityScheme{&entityauth.None{}},
		Limits: msl.Limits{Header: 1 << 20, Chunk: 1 << 20, Held: 1, Unproven: 1},
	}})
	defer server.Close()
	first := make(chan *http.Response, 3)
	for range 3 {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n{\"x\":\"%s", bytes.Repeat([]byte("x"), 900<<10))
		go func() {
			if r, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				first <- r
			}
		}()
	}
	select {
	case r := <-first:
		if r.StatusCode != http.StatusServiceUnavailable || !r.Close {
			t.Error(r)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody makes room")
	}
}
