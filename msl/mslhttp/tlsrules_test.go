package mslhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// A bench is a server and a client of ours, between which a test can do anything.
type tlsBench struct {
	testing.TB
	version  uint16
	listener *tlsListener
	dialer   *tlsDialer
	accepted chan *TLSConn
	alerts   [2]tlsalert.Counter // of the server, of the client
	seen     [2]events
}

func newTLSBench(t testing.TB, a *authority, version uint16) *tlsBench {
	t.Helper()
	b := &tlsBench{TB: t, version: version, accepted: make(chan *TLSConn, 1)}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Alerts: &b.alerts[0], Report: b.seen[0].note}
	l, err := server.Listen(raw)
	if err != nil {
		t.Fatal(err)
	}
	b.listener = l.(*tlsListener)
	suites := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	b.listener.base.CipherSuites = suites
	b.dialer, err = (&TLSClient{Roots: a.pool(), Alerts: &b.alerts[1], Report: b.seen[1].note}).dialer()
	if err != nil {
		t.Fatal(err)
	}
	b.dialer.base.MinVersion, b.dialer.base.MaxVersion = version, version
	t.Cleanup(func() { raw.Close() })
	return b
}

// connect makes a connection through the wire. Handshake errors are those of each
// side.
func (b *tlsBench) connect(w *tlsalerttest.Wire) (client, server *TLSConn, clientErr, serverErr error) {
	b.Helper()
	w.Keys = &tlsalerttest.Keys{}
	b.listener.base.KeyLogWriter = w.Keys
	raw, err := w.Dial(b.listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.Close(); raw.Close() })
	accepted, err := b.listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	server = accepted.(*TLSConn)
	shaken := make(chan error, 1)
	go func() { shaken <- server.HandshakeContext(context.Background()) }()
	c, clientErr := b.dialer.over(b.Context(), raw, "server")
	serverErr = <-shaken
	if w.Err() != nil {
		b.Fatal(w.Err())
	}
	client, _ = c.(*TLSConn)
	return client, server, clientErr, serverErr
}

// established is connect for a handshake that must succeed. Each side has read all
// that there was to read.
func (b *tlsBench) established(w *tlsalerttest.Wire) (client, server *TLSConn) {
	b.Helper()
	client, server, err1, err2 := b.connect(w)
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	pass(b, server, client) // and the ticket before it
	pass(b, client, server)
	return client, server
}

func pass(t testing.TB, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// fresh makes the next handshake a full one.
func (b *tlsBench) fresh() { b.dialer.sessions = tls.NewLRUClientSessionCache(1) }

// sentSoFar is how many records the peer of the victim has sent in an established
// connection, after its Finished message.
func (b *tlsBench) sentSoFar(victimIsClient bool) uint64 {
	if victimIsClient && b.version == tls.VersionTLS13 {
		return 2 // the ticket and hello
	}
	return 1
}

// resumes reports whether the next connection resumes the session.
func (b *tlsBench) resumes() bool {
	b.Helper()
	client, server := b.established(&tlsalerttest.Wire{At: tlsalerttest.AfterHandshake})
	defer server.Close()
	defer client.Close()
	return client.ConnectionState().DidResume
}

func both(t *testing.T, test func(t *testing.T, version uint16, client bool)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/client %v", tls.VersionName(version), client), func(t *testing.T) { test(t, version, client) })
		}
	}
}

func choose[T any](client bool, ofClient, ofServer T) T {
	if client {
		return ofClient
	}
	return ofServer
}

// TestOrderlySession resumes a session that ended with close_notify, which is not a
// failure.
func TestOrderlySession(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		c, s := b.established(&tlsalerttest.Wire{At: tlsalerttest.AfterHandshake})
		first, other := choose(client, c, s), choose(client, s, c)
		first.Close()
		if n, err := other.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after close_notify: %d bytes, error %v", n, err)
		}
		other.Close()
		if !b.resumes() {
			t.Error("the session was not resumed")
		}
		if len(b.seen[0].all)+len(b.seen[1].all)+len(b.alerts[0].Counts())+len(b.alerts[1].Counts()) > 0 {
			t.Errorf("reported %v %v", b.seen[0].all, b.seen[1].all)
		}
	})
}

// TestFatalReceived puts every alert that is fatal into an established connection.
func TestFatalReceived(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		for _, alert := range tlsalert.All() {
			if alert.Fatal(tlsalert.FatalByte, version) {
				b.fatalReceived(alert, client)
			}
		}
	})
}

func (b *tlsBench) fatalReceived(alert tlsalert.Alert, client bool) {
	b.Helper()
	b.fresh()
	w := &tlsalerttest.Wire{Client: client, At: tlsalerttest.AfterHandshake}
	c, s := b.established(w)
	victim, peer := choose(client, c, s), choose(client, s, c)
	ctx := TLSContext(b.Context(), victim)
	before := w.Sent()
	if err := w.Inject(tlsalert.FatalByte, byte(alert), b.sentSoFar(client)); err != nil {
		b.Fatal(err)
	}
	_, err := victim.Read(make([]byte, 1))
	var failure *tlsalert.Error
	if !errors.As(err, &failure) || failure.Alert != alert || failure.Origin != tlsalert.Received {
		b.Errorf("%v: read %v", alert, err)
	}
	<-w.Left() // closed, though nobody called Close
	<-ctx.Done()
	if context.Cause(ctx) != err {
		b.Errorf("%v: the context ended for %v", alert, context.Cause(ctx))
	}
	if n, err := victim.Write([]byte("more")); n != 0 || !errors.As(err, &failure) {
		b.Errorf("%v: written %d, %v", alert, n, err)
	}
	if err := victim.Close(); err != nil {
		b.Errorf("%v: close %v", alert, err)
	}
	if after := w.Sent(); !bytes.Equal(before, after) {
		b.Errorf("%v: sent %d bytes after a fatal alert", alert, len(after)-len(before))
	}
	peer.Close()
	side := choose(client, 1, 0)
	if fatal := b.seen[side].fatal(); len(fatal) == 0 || fatal[len(fatal)-1].Alert != alert || fatal[len(fatal)-1].Server == client {
		b.Errorf("%v: reported %v", alert, fatal)
	}
	if b.resumes() {
		b.Errorf("%v: the session was resumed", alert)
	}
}

// TestFatalSent corrupts a record, and what it gets is one alert and the end.
func TestFatalSent(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		corrupt := false
		w := &tlsalerttest.Wire{Client: client, At: tlsalerttest.AfterHandshake, Mangle: func(_ int, record []byte) []byte {
			if corrupt {
				record[len(record)-1] ^= 1
			}
			return record
		}}
		c, s := b.established(w)
		victim, peer := choose(client, c, s), choose(client, s, c)
		before := len(w.Sent())
		corrupt = true
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_, err := victim.Read(make([]byte, 1))
		var failure *tlsalert.Error
		if !errors.As(err, &failure) || failure.Alert != tlsalert.BadRecordMAC || failure.Origin != tlsalert.Sent {
			t.Errorf("read %v", err)
		}
		<-w.Left()
		victim.Close()
		if _, err := peer.Read(make([]byte, 1)); !errors.As(err, &failure) || failure.Alert != tlsalert.BadRecordMAC || failure.Origin != tlsalert.Received {
			t.Errorf("the peer read %v", err)
		}
		sent := bytes.NewReader(w.Sent()[before:])
		if _, err := tlsalerttest.ReadRecord(sent); err != nil || sent.Len() > 0 {
			t.Errorf("after the alert %d bytes more were sent (%v)", sent.Len(), err)
		}
		if b.resumes() {
			t.Error("the session was resumed")
		}
	})
}

// TestFatalDuringHandshake puts every alert in before and after the server's hello.
// A resumed session is one that failed.
func TestFatalDuringHandshake(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		for _, at := range []tlsalerttest.State{tlsalerttest.BeforeHello, tlsalerttest.DuringHandshake} {
			for _, alert := range tlsalert.All() {
				for _, level := range []byte{tlsalert.WarningByte, tlsalert.FatalByte} {
					if alert.Fatal(level, choose[uint16](at == tlsalerttest.BeforeHello, 0, version)) {
						b.fatalDuringHandshake(alert, level, at, client)
					}
				}
			}
		}
	})
}

func (b *tlsBench) fatalDuringHandshake(alert tlsalert.Alert, level byte, at tlsalerttest.State, client bool) {
	b.Helper()
	w := &tlsalerttest.Wire{Client: client, Alert: [2]byte{level, byte(alert)}, At: at}
	c, s, clientErr, serverErr := b.connect(w)
	err := choose(client, clientErr, serverErr)
	if got, origin, ok := tlsalert.From(err); got != alert || origin != tlsalert.Received || !ok {
		b.Errorf("%v %v, level %d: %v", alert, at, level, err)
	}
	<-w.Left()
	for _, conn := range []*TLSConn{c, s} {
		if conn != nil {
			conn.Close()
		}
	}
}

// TestWarnings goes on, and counts.
func TestWarnings(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		side := choose(client, 1, 0)
		for _, alert := range []tlsalert.Alert{tlsalert.UserCanceled, tlsalert.NoRenegotiation, tlsalert.UnrecognizedName} {
			if alert.Fatal(tlsalert.WarningByte, version) {
				continue
			}
			w := &tlsalerttest.Wire{Client: client, Alert: [2]byte{tlsalert.WarningByte, byte(alert)}, At: tlsalerttest.DuringHandshake}
			if version == tls.VersionTLS13 {
				w.At = tlsalerttest.BeforeHello
			}
			if client && w.At == tlsalerttest.BeforeHello {
				continue // crypto/tls takes any alert there for fatal if it has not its version
			}
			c, s := b.established(w)
			c.Close()
			s.Close()
			if counts := b.alerts[side].Counts(); len(counts) == 0 || counts[len(counts)-1] != (tlsalert.Count{Alert: alert, Origin: tlsalert.Received, Times: 1}) {
				t.Errorf("%v: counted %v", alert, counts)
			}
		}
		// One that is encrypted is dropped by crypto/tls.
		b.fresh()
		w := &tlsalerttest.Wire{Client: client, At: tlsalerttest.AfterHandshake}
		c, s := b.established(w)
		n := b.sentSoFar(client)
		if err := errors.Join(w.Inject(tlsalert.WarningByte, byte(tlsalert.UserCanceled), n), w.Inject(tlsalert.WarningByte, byte(tlsalert.CloseNotify), n+1)); err != nil {
			t.Fatal(err)
		}
		if _, err := choose(client, c, s).Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after user_canceled and close_notify: %v", err)
		}
		c.Close()
		s.Close()
		if got, want := b.alerts[side].Unreadable(), choose[uint64](version == tls.VersionTLS12, 1, 0); got != want {
			t.Errorf("%d unreadable warnings, want %d", got, want)
		}
		if len(b.seen[side].fatal()) > 0 {
			t.Errorf("reported %v", b.seen[side].fatal())
		}
	})
}

// TestTruncated tells the end of a connection from close_notify.
func TestTruncated(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		w := &tlsalerttest.Wire{Client: client, At: tlsalerttest.AfterHandshake}
		c, s := b.established(w)
		victim, peer := choose(client, c, s), choose(client, s, c)
		peer.wire.Conn.Close()
		if _, err := victim.Read(make([]byte, 1)); !errors.Is(err, ErrTLSTruncated) {
			t.Errorf("read %v", err)
		}
		if _, _, is := tlsalert.From(victim.failure()); is {
			t.Error("a truncation is taken for an alert")
		}
		if n := b.alerts[choose(client, 1, 0)].Truncated(); n != 1 {
			t.Errorf("counted %d", n)
		}
		victim.Close()
		peer.Close()
	})
}

// TestCloseWhileReading ends a read, and sends close_notify.
func TestCloseWhileReading(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		c, s := b.established(&tlsalerttest.Wire{At: tlsalerttest.AfterHandshake})
		first, other := choose(client, c, s), choose(client, s, c)
		ended := make(chan error, 1)
		go func() { _, err := first.Read(make([]byte, 1)); ended <- err }()
		for first.reading.TryLock() { // until the read is under way
			first.reading.Unlock()
			time.Sleep(time.Millisecond)
		}
		if err := errors.Join(first.Close(), first.SetDeadline(time.Time{})); !errors.Is(err, net.ErrClosed) {
			t.Errorf("close, and a deadline afterwards: %v", err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read %v", err)
		}
		if _, err := other.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the other side read %v", err)
		}
		other.Close()
	})
}

// plainHello is a client hello of TLS 1.2 without extensions.
func plainHello() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0xc0, 0x2b, 1, 0)
	message := append([]byte{1, 0, 0, byte(len(body))}, body...)
	return append([]byte{22, 3, 1, 0, byte(len(message))}, message...)
}

// TestExtensionAlerts never sends one to a client without extensions, as crypto/tls
// by itself would.
func TestExtensionAlerts(t *testing.T) {
	for _, ours := range []bool{false, true} {
		raw, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(plainHello())
		var server net.Conn
		if ours {
			l := &tlsListener{Listener: raw, rules: newRules(0, nil, nil)}
			l.base = &tls.Config{GetConfigForClient: l.configure}
			server, err = l.Accept()
		} else {
			server, err = raw.Accept()
			server = tls.Server(server, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return &tls.Config{}, nil }})
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() { server.Read(make([]byte, 1)); server.Close() }()
		record, err := tlsalerttest.ReadRecord(c)
		want := choose(ours, byte(tlsalert.HandshakeFailure), byte(tlsalert.UnrecognizedName))
		if err != nil || len(record) != 7 || record[6] != want {
			t.Errorf("ours %v: record %x, error %v", ours, record, err)
		}
		c.Close()
	}
}

// TestWireServerHello finds out whether a server hello has extensions.
func TestWireServerHello(t *testing.T) {
	for _, test := range []struct {
		extensions []byte
		want       byte
	}{
		{nil, byte(tlsalert.HandshakeFailure)},
		{[]byte{0, 4, 0xff, 1, 0, 0}, byte(tlsalert.UnsupportedExtension)},
	} {
		body := append([]byte{3, 3}, make([]byte, 32)...)
		body = append(append(append(body, 4), "abcd"...), 0xc0, 0x2b, 0)
		body = append(body, test.extensions...)
		message := append([]byte{2, 0, 0, byte(len(body))}, body...)
		record := append([]byte{22, 3, 3, 0, byte(len(message))}, message...)
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		c := newTLSConn(here, newRules(0, nil, nil), false)
		go func() {
			for _, b := range record { // in the smallest pieces
				there.Write([]byte{b})
			}
		}()
		if _, err := io.ReadFull(c.wire, make([]byte, len(record))); err != nil {
			t.Fatal(err)
		}
		alert := []byte{21, 3, 3, 0, 2, 2, byte(tlsalert.UnsupportedExtension)}
		go c.wire.Write(alert)
		got := make([]byte, 7)
		if _, err := io.ReadFull(there, got); err != nil || got[6] != test.want || alert[6] != byte(tlsalert.UnsupportedExtension) {
			t.Errorf("%x: sent %x, error %v", test.extensions, got, err)
		}
		if n, err := c.wire.Write([]byte("x")); n != 0 || err == nil {
			t.Error("something was sent after a fatal alert")
		}
	}
}

// TestWirePieces reads alerts however they are cut.
func TestWirePieces(t *testing.T) {
	// The encrypted alert ends like a plain one.
	encrypted := append([]byte{21, 3, 3, 0, 26}, bytes.Repeat([]byte{1}, 26)...)
	stream := append(encrypted, []byte{23, 3, 3, 0, 3, 'a', 'b', 'c', 21, 3, 3, 0, 2, 1, byte(tlsalert.BadCertificate), 21, 3, 3, 0, 2, 1, byte(tlsalert.NoRenegotiation), 23, 3, 3, 0, 1, 'd'}...)
	want := bytes.Clone(stream)
	want[len(encrypted)+13] = tlsalert.FatalByte
	for size := 1; size <= len(stream); size++ {
		here, there := net.Pipe()
		var alerts tlsalert.Counter
		c := newTLSConn(here, newRules(0, &alerts, nil), false)
		go func() {
			for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				there.Write(rest[:min(size, len(rest))])
			}
			there.Close()
		}()
		got, err := io.ReadAll(c.wire)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: %x, error %v", size, got, err)
		}
		if counts := alerts.Counts(); len(counts) != 1 || counts[0].Alert != tlsalert.NoRenegotiation {
			t.Errorf("in pieces of %d: counted %v", size, counts)
		}
		here.Close()
	}
}

// TestDenyList stays bounded and forgets nobody.
func TestDenyList(t *testing.T) {
	d := &denyList{max: 10}
	var denied []sessionName
	for range 35 {
		n := d.name()
		if !d.allows(n) {
			t.Fatal("a new session is denied")
		}
		d.deny(n)
		denied = append(denied, n)
		if len(d.denied) > 10 {
			t.Fatalf("%d names", len(d.denied))
		}
	}
	for i, n := range denied {
		if d.allows(n) {
			t.Errorf("session %d is allowed again", i)
		}
	}
	if !d.allows(d.name()) || d.era == 0 {
		t.Error("no session is allowed any more, or no era ended")
	}
}

// TestForgottenSession keeps nothing that comes after a fatal alert.
func TestForgottenSession(t *testing.T) {
	shared := tls.NewLRUClientSessionCache(4)
	c, other := &cached{shared: shared}, &cached{shared: shared}
	state, err := tls.NewResumptionState([]byte("ticket"), &tls.SessionState{})
	if err != nil {
		t.Fatal(err)
	}
	c.Put("a", state)
	other.Put("b", state)
	c.forget()
	c.Put("a", state)
	if _, found := shared.Get("a"); found {
		t.Error("the session of a failed connection is kept")
	}
	if _, found := other.Get("b"); !found {
		t.Error("the session of another server is gone")
	}
}
