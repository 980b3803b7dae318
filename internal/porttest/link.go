package porttest

import (
	"net"
	"slices"
	"sync"
	"testing"
)

// A Link passes TCP connections on, each to the next of several places, or to another one
// if that does not take it. It can be cut, and can stall.
type Link struct {
	net.Listener
	places []string
	work   sync.WaitGroup

	mu    sync.Mutex
	turn  int
	cut   bool
	flow  chan struct{} // closed while bytes flow
	dead  chan struct{} // closed once the present connections are stranded
	conns []net.Conn
}

// NewLink returns a link on the loopback interface, which ends with the test.
func NewLink(t testing.TB, places ...string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Listener: listener, places: places, flow: make(chan struct{}), dead: make(chan struct{})}
	close(l.flow)
	l.work.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.Mend()
		l.Sever()
		l.work.Wait()
	})
	return l
}

func (l *Link) accept() {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		l.work.Go(func() { l.connect(from) })
	}
}

// connect passes one connection on.
func (l *Link) connect(from net.Conn) {
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
func (l *Link) take(pair ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns = append(l.conns, pair...)
	return true
}

func (l *Link) both(a, b net.Conn) {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	l.work.Go(func() { l.pass(a, b, dead) })
	l.pass(b, a, dead)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(l.conns, func(c net.Conn) bool { return c == a || c == b })
}

// pass carries bytes one way, and the end of them, or swallows them once dead is closed.
func (l *Link) pass(from, to net.Conn, dead <-chan struct{}) {
	data := make([]byte, 32<<10)
	for {
		n, err := from.Read(data)
		<-l.flowing()
		select {
		case <-dead:
			if err != nil {
				return
			}
			continue
		default:
		}
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

func (l *Link) flowing() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow
}

// Sever ends all connections, and takes no others.
func (l *Link) Sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, c := range l.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// Stall takes connections and carries nothing.
func (l *Link) Stall() {
	l.Mend()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow = make(chan struct{})
}

// Strand leaves the present connections open, and carries nothing on them any more, as a
// firewall that forgot them. Others are not affected.
func (l *Link) Strand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.dead)
	l.dead = make(chan struct{})
}

// Mend ends Sever and Stall.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	select {
	case <-l.flow:
	default:
		close(l.flow)
	}
}
