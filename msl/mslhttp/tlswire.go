package mslhttp

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

const (
	recordAlert       = 21
	recordHandshake   = 22
	recordApplication = 23

	// alert13 is the length of an alert in TLS 1.3, which looks like application data:
	// two bytes, the type and the tag, which has the same length for every cipher (RFC
	// 8446 section 5.2).
	alert13 = 2 + 1 + 16

	lingerTime  = time.Second // for a fatal alert to reach the peer
	lingerBytes = 256 << 10
)

// records follows the records of one direction by their headers (RFC 8446 section
// 5.1). An alert of two bytes is not encrypted: encryption adds to its length.
type records struct {
	header    [5]byte
	have      int           // bytes of header
	size      int           // of the record
	left      int           // bytes of the record still to come
	hello     []byte        // start of the first handshake message
	encrypted atomic.Uint64 // alerts whose number is hidden
	hidden    func()        // unless nil, called at the start of each record that may be such an alert
}

// helloEnough is how many bytes of a server hello show whether it has extensions: up to
// the length of the session identifier (RFC 5246 section 7.4.1.3).
const helloEnough = 39

// scan calls alert for each plain alert, with the index of its level byte. It stops
// before a level whose number has not arrived yet, and returns how far it got.
func (r *records) scan(p []byte, alert func(at int)) int {
	for i := 0; i < len(p); {
		if r.left == 0 {
			n := copy(r.header[r.have:], p[i:])
			i += n
			if r.have += n; r.have < len(r.header) {
				return i
			}
			r.begin()
			continue
		}
		n := min(r.left, len(p)-i)
		switch {
		case r.header[0] == recordAlert && r.size == 2 && n == 1:
			return i
		case r.header[0] == recordAlert && r.size == 2:
			alert(i)
		case r.header[0] == recordHandshake && len(r.hello) < helloEnough:
			r.hello = append(r.hello, p[i:i+min(n, helloEnough-len(r.hello))]...)
		}
		r.left -= n
		i += n
	}
	return len(p)
}

func (r *records) begin() {
	r.have, r.size = 0, int(binary.BigEndian.Uint16(r.header[3:]))
	r.left = r.size
	inAlert := r.header[0] == recordAlert && r.size > 2
	if inAlert {
		r.encrypted.Add(1)
	}
	if r.hidden != nil && (inAlert || r.header[0] == recordApplication && r.size == alert13) {
		r.hidden()
	}
}

// extendedServerHello reports whether a server hello with extensions was read.
func (r *records) extendedServerHello() bool {
	if len(r.hello) < helloEnough || r.hello[0] != 2 {
		return false
	}
	length := int(r.hello[1])<<16 | int(r.hello[2])<<8 | int(r.hello[3])
	return length > 2+32+1+int(r.hello[38])+2+1
}

// A tlsWire is the connection below TLS. It enforces the rules about alerts that
// crypto/tls leaves to its users.
type tlsWire struct {
	net.Conn
	conn *TLSConn // the connection above this one

	in, out  records
	held     []byte      // a byte read too early
	extended atomic.Bool // the client's hello had extensions
	cut      atomic.Bool // the peer has closed the connection below TLS
	dead     atomic.Bool
	ending   atomic.Bool  // this side is sending close_notify
	instead  *ownAlert    // replaces the next fatal alert; set by the handshake
	sent     atomic.Int32 // fatal alert that was sent in clear, or -1
	got      atomic.Int32 // fatal alert that was received in clear, or -1
}

// Read makes a warning fatal if the policy of package tlsalert says so.
func (w *tlsWire) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if w.dead.Load() {
			return 0, net.ErrClosed
		}
		n := copy(p, w.held)
		w.held = w.held[n:]
		m, err := w.Conn.Read(p[n:])
		n += m
		if err == io.EOF {
			w.cut.Store(true)
		}
		used := w.in.scan(p[:n], func(at int) { w.receive(p[at : at+2]) })
		if used == n || err != nil {
			return n, err
		}
		w.held = append(w.held[:0:0], p[used:n]...)
		if used > 0 {
			return used, nil
		}
	}
	return 0, nil
}

// receive handles a plain alert of the peer.
func (w *tlsWire) receive(record []byte) {
	a := tlsalert.Alert(record[1])
	switch {
	case a.Fatal(record[0], 0):
		record[0] = tlsalert.FatalByte
		w.got.Store(int32(a))
	case a != tlsalert.CloseNotify:
		w.conn.rules.warned(w.conn, a)
	}
}

// Write sends no extension alert to a peer whose hello had no extensions, and
// nothing at all after a fatal alert. The session is made unresumable before the peer
// can see such an alert.
func (w *tlsWire) Write(p []byte) (int, error) {
	if w.dead.Load() {
		return 0, net.ErrClosed
	}
	if w.instead != nil && w.instead.record != nil {
		return w.writeOwn(len(p))
	}
	plain := p
	w.out.scan(p, func(at int) {
		if a := w.choose(tlsalert.Alert(p[at+1])); byte(a) != p[at+1] {
			plain = append([]byte(nil), plain...) // p belongs to the caller
			plain[at+1] = byte(a)
		}
		if plain[at] == tlsalert.FatalByte {
			w.conn.forget()
			w.sent.Store(int32(plain[at+1]))
			w.dead.Store(true)
		}
	})
	return w.Conn.Write(plain)
}

// writeOwn sends its own encrypted alert instead of the n bytes of the alert of
// crypto/tls.
func (w *tlsWire) writeOwn(n int) (int, error) {
	w.conn.forget()
	w.sent.Store(int32(w.instead.alert))
	w.dead.Store(true)
	if _, err := w.Conn.Write(w.instead.record); err != nil {
		return 0, err
	}
	return n, nil
}

// hide is called for records sent that may be encrypted alerts, and forgets the session
// unless the record is a close_notify. Application data with the length of an alert costs
// a full handshake later.
func (w *tlsWire) hide() {
	if !w.ending.Load() {
		w.conn.forget()
	}
}

// choose returns the alert to send where crypto/tls would send a.
func (w *tlsWire) choose(a tlsalert.Alert) tlsalert.Alert {
	switch {
	case w.instead != nil:
		return w.instead.alert
	case !w.may(a):
		return tlsalert.HandshakeFailure
	}
	return a
}

// may reports whether this side may send an alert. To a hello without extensions, an
// alert is always in clear: without them there is no TLS 1.3, and in older versions the
// handshake is in clear up to its last message.
func (w *tlsWire) may(a tlsalert.Alert) bool {
	if !a.Info().Extension {
		return true
	}
	if w.conn.server {
		return a.Allowed(tlsalert.Server, w.extended.Load())
	}
	return a.Allowed(tlsalert.Client, w.in.extendedServerHello())
}

// shut ends the connection immediately. After sending an alert it lingers only until the
// alert reaches the peer: unread data would make the system reset the connection, and the
// peer would never learn why.
func (w *tlsWire) shut(linger bool) {
	w.dead.Store(true)
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if !linger || !ok || half.CloseWrite() != nil {
		w.Conn.Close()
		return
	}
	go func() {
		defer w.Conn.Close()
		w.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, w.Conn, lingerBytes)
	}()
}
