package mslhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

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

// TestFatalReceived injects every fatal alert into an established connection.
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

// TestFatalSent corrupts a record, and gets one alert and the end of the connection.
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

// TestFatalDuringHandshake injects every fatal alert before and after the server's hello: at each
// level at which it is fatal, of which the everyday tests try one before the hello and the other
// after it.
func TestFatalDuringHandshake(t *testing.T) {
	a := newAuthority(t)
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, a, version)
		for _, at := range []tlsalerttest.State{tlsalerttest.BeforeHello, tlsalerttest.DuringHandshake} {
			for i, alert := range tlsalert.All() {
				var levels []byte
				for _, level := range []byte{tlsalert.WarningByte, tlsalert.FatalByte} {
					if alert.Fatal(level, choose[uint16](at == tlsalerttest.BeforeHello, 0, version)) {
						levels = append(levels, level)
					}
				}
				if len(levels) == 2 && os.Getenv("MSL_SOAK") == "" {
					levels = levels[(i+int(at))%2:][:1]
				}
				for _, level := range levels {
					b.fatalDuringHandshake(alert, level, at, client)
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

// TestWarnings continues after a warning, and counts it.
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
		// crypto/tls drops an encrypted one.
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

// TestTruncated distinguishes the end of a connection from close_notify.
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

// TestDenyList checks that the list stays bounded and forgets no session.
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

// TestForgottenSession keeps no session that comes after a fatal alert.
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
