package cli

import (
	"net"
	"slices"
	"sync"
	"testing"
)

// A link passes TCP connections on, each to the next of several places, or to another one
// if that does not take it. It can be cut, and can stall.
type link struct {
	net.Listener
	places []string
	work   sync.WaitGroup

	mu    sync.Mutex
	turn  int
	cut   bool
	flow  chan struct{} // closed while bytes flow
	conns []net.Conn
}

func newLink(t testing.TB, places ...string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Listener: listener, places: places, flow: make(chan struct{})}
	close(l.flow)
	l.work.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.mend()
		l.sever()
		l.work.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		l.work.Go(func() { l.connect(from) })
	}
}

// connect passes one connection on.
func (l *link) connect(from net.Conn) {
	defer from.Close()
	l.mu.Lock()
	places := slices.Concat(l.places[l.turn:], l.places[:l.turn])
	l.turn = (l.turn + 1) % len(l.places)
	l.mu.Unlock()
	for _, place := range places {
		if to, err := net.Dial("tcp", place); err == nil {
			defer to.Close()
			if l.take(from, to) {
				l.both(from, to)
			}
			return
		}
	}
}

// take notes a connection, unless the link is cut.
func (l *link) take(pair ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns = append(l.conns, pair...)
	return true
}

func (l *link) both(a, b net.Conn) {
	l.work.Go(func() { l.pass(a, b) })
	l.pass(b, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(l.conns, func(c net.Conn) bool { return c == a || c == b })
}

// pass carries bytes one way, and the end of them.
func (l *link) pass(from, to net.Conn) {
	data := make([]byte, 32<<10)
	for {
		n, err := from.Read(data)
		<-l.flowing()
		if _, failed := to.Write(data[:n]); failed != nil {
			from.Close()
			return
		}
		if err != nil {
			to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

func (l *link) flowing() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow
}

// sever ends all connections, and takes no others.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, c := range l.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// stall takes connections and carries nothing.
func (l *link) stall() {
	l.mend()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow = make(chan struct{})
}

// mend ends sever and stall.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	select {
	case <-l.flow:
	default:
		close(l.flow)
	}
}
