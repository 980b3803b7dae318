package mslhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// ErrTLSTruncated means that a TLS connection ended without close_notify: an attacker
// may have cut off the end of the data (RFC 8446 section 6.1).
var ErrTLSTruncated = errors.New("mslhttp: TLS connection ended without close_notify")

// A TLSEvent is a failure of a TLS connection, or a warning on it. Users of the
// connection see at most a failed read.
type TLSEvent struct {
	Remote  net.Addr
	Server  bool            // this side is the server
	Alert   tlsalert.Alert  // if Origin is not zero
	Origin  tlsalert.Origin // side that raised the alert; zero if there is none
	Warning bool            // the connection continues
	Err     error           // why it ended; nil for a warning
}

// tlsRules is what the connections of one side have in common.
type tlsRules struct {
	patience time.Duration // for a handshake
	alerts   *tlsalert.Counter
	report   func(TLSEvent)
}

func (r *tlsRules) warned(c *TLSConn, a tlsalert.Alert) {
	r.alerts.Add(a, tlsalert.Received, false)
	r.tell(c, TLSEvent{Alert: a, Origin: tlsalert.Received, Warning: true})
}

func (r *tlsRules) tell(c *TLSConn, e TLSEvent) {
	if r.report != nil {
		e.Remote, e.Server = c.wire.RemoteAddr(), c.server
		r.report(e)
	}
}

// A TLSConn is a TLS connection that ends immediately after a fatal alert, sent or
// received: it is closed, nothing more is sent on it, its context ends, and its session
// cannot be resumed. It returns io.EOF after close_notify, and [ErrTLSTruncated] if the
// connection ends without one. Its other failures are [*tlsalert.Error].
type TLSConn struct {
	tls    *tls.Conn
	wire   *tlsWire
	rules  *tlsRules
	server bool
	forget func() // makes the session unresumable

	ctx    context.Context
	cancel context.CancelCauseFunc

	reading sync.Mutex // while a read is under way
	shaken  atomic.Bool

	mu      sync.Mutex
	closing bool
	err     error // why it ended
	keyErr  error // of this side's private key

	stranger string // server name requested by the client, if no certificate has it
}

func newTLSConn(raw net.Conn, rules *tlsRules, server bool) *TLSConn {
	c := &TLSConn{rules: rules, server: server, forget: func() {}}
	c.wire = &tlsWire{Conn: raw, conn: c}
	c.wire.sent.Store(-1)
	c.wire.got.Store(-1)
	c.wire.out.hidden = c.wire.hide
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// HandshakeContext performs the handshake if that has not been done. Read and Write do so
// automatically.
func (c *TLSConn) HandshakeContext(ctx context.Context) error {
	if c.shaken.Load() {
		return nil
	}
	if err := c.failure(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.rules.patience)
	defer cancel()
	err := c.tls.HandshakeContext(ctx)
	if err == io.EOF {
		err = fmt.Errorf("mslhttp: the peer gave up during the TLS handshake: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return c.fail(err)
	}
	c.shaken.Store(true)
	return nil
}

// Read implements net.Conn.
func (c *TLSConn) Read(p []byte) (int, error) {
	if err := c.HandshakeContext(context.Background()); err != nil {
		return 0, err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if err := c.failure(); err != nil {
		return 0, err
	}
	n, err := c.tls.Read(p)
	return n, c.judge(err)
}

// Write implements net.Conn.
func (c *TLSConn) Write(p []byte) (int, error) {
	if err := c.HandshakeContext(context.Background()); err != nil {
		return 0, err
	}
	if err := c.failure(); err != nil {
		return 0, err
	}
	n, err := c.tls.Write(p)
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "write" && !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, c.awaitReason(err)
	}
	return n, c.judge(err)
}

// awaitReason gives a read under way time to find out why the peer accepts no more data:
// an alert says more than a broken pipe.
func (c *TLSConn) awaitReason(err error) error {
	if c.reading.TryLock() {
		c.reading.Unlock()
		return err
	}
	patience := time.NewTimer(endPatience)
	defer patience.Stop()
	select {
	case <-c.ctx.Done():
	case <-patience.C:
	}
	if reason := c.failure(); reason != nil {
		return reason
	}
	return err
}

// judge distinguishes failures of TLS from an orderly end and from a deadline.
func (c *TLSConn) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case c.isClosing():
		return net.ErrClosed
	case err == io.EOF && !c.wire.cut.Load():
		c.countHidden(1)
		return io.EOF
	case err == io.EOF:
		return c.fail(ErrTLSTruncated)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return c.fail(err)
}

// fail ends the connection, once.
func (c *TLSConn) fail(cause error) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	c.answerPlain(cause)
	a, origin, isAlert := c.find(cause)
	c.err = c.explain(cause, a, origin, isAlert)
	err := c.err
	c.mu.Unlock()

	c.wire.shut(origin == tlsalert.Sent)
	switch {
	case isAlert:
		c.forget()
		c.rules.alerts.Add(a, origin, true)
	case errors.Is(cause, ErrTLSTruncated) || errors.Is(cause, io.ErrUnexpectedEOF):
		c.rules.alerts.AddTruncated()
	}
	hidden := 0
	if origin == tlsalert.Received {
		hidden = 1
	}
	c.countHidden(hidden)
	c.cancel(err)
	c.rules.tell(c, TLSEvent{Alert: a, Origin: origin, Err: err})
	return err
}

// explain returns one error with everything known about the failure.
func (c *TLSConn) explain(cause error, a tlsalert.Alert, origin tlsalert.Origin, isAlert bool) error {
	var own *tlsalert.Error
	if errors.As(cause, &own) { // from this package's own checks
		cause = own.Err
	}
	if c.stranger != "" && a == tlsalert.UnrecognizedName && origin == tlsalert.Sent {
		cause = fmt.Errorf("mslhttp: no configured certificate has the name %q, which the client asked for", c.stranger)
	}
	if c.keyErr != nil {
		cause = fmt.Errorf("%w (%w)", cause, c.keyErr)
	}
	cause = safetext.Brief(cause) // the peer may have chosen the names in it
	if !isAlert {
		return cause
	}
	return &tlsalert.Error{Alert: a, Origin: origin, Err: cause}
}

// find prefers an alert that was seen on the wire to one that an error implies. An
// alert received in clear says why a TLS 1.3 handshake failed even if it should have
// been encrypted: OpenSSL's clients send such alerts, and crypto/tls reports them as bad
// records.
func (c *TLSConn) find(err error) (tlsalert.Alert, tlsalert.Origin, bool) {
	if got := c.wire.got.Load(); got >= 0 && !c.shaken.Load() {
		return tlsalert.Alert(got), tlsalert.Received, true
	}
	if sent := c.wire.sent.Load(); sent >= 0 {
		return tlsalert.Alert(sent), tlsalert.Sent, true
	}
	if c.server {
		return tlsalert.FromServer(err)
	}
	return tlsalert.From(err)
}

// countHidden counts the encrypted alerts that were dropped as warnings: all but those
// that ended the connection.
func (c *TLSConn) countHidden(ends int) {
	for n := int(c.wire.in.encrypted.Swap(0)) - ends; n > 0; n-- {
		c.rules.alerts.AddUnreadable()
	}
}

// answerPlain tells a client that speaks HTTP without TLS what is wrong. Anything else
// gets the alert unexpected_message (RFC 8446 section 5).
func (c *TLSConn) answerPlain(err error) {
	var record tls.RecordHeaderError
	if !c.server || !errors.As(err, &record) || record.Conn == nil {
		return
	}
	c.wire.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
	if start := string(record.RecordHeader[:]); strings.HasPrefix(start, "POST ") || strings.HasPrefix(start, "GET /") || strings.HasPrefix(start, "HEAD ") {
		_, _ = io.WriteString(c.wire.Conn, "HTTP/1.0 400 Bad Request\r\n\r\n"+speaksTLS+": write https:// in its URL.\n")
		return
	}
	_, _ = c.wire.Write([]byte{recordAlert, 3, 1, 0, 2, tlsalert.FatalByte, byte(tlsalert.UnexpectedMessage)})
}

func (c *TLSConn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *TLSConn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing && c.err == nil
}

// Close sends close_notify, unless the connection has failed, and closes it.
func (c *TLSConn) Close() error {
	defer c.cancel(net.ErrClosed)
	c.mu.Lock()
	again, failed := c.closing, c.err != nil
	c.closing = true
	// A read under way must end first: it could be sending a fatal alert, and nothing may
	// be sent after that.
	c.wire.Conn.SetReadDeadline(time.Unix(1, 0))
	c.wire.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
	c.mu.Unlock()
	switch {
	case failed:
		return nil
	case again || !c.shaken.Load():
		return c.wire.Conn.Close()
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.failure() != nil {
		return nil
	}
	c.countHidden(0)
	c.wire.ending.Store(true)
	return c.tls.Close()
}

// CloseWrite sends close_notify. The connection can still be read.
func (c *TLSConn) CloseWrite() error {
	if err := c.failure(); err != nil {
		return err
	}
	c.wire.ending.Store(true)
	defer c.wire.ending.Store(false)
	return c.tls.CloseWrite()
}

// ConnectionState returns the state of the connection, after its handshake.
func (c *TLSConn) ConnectionState() tls.ConnectionState {
	_ = c.HandshakeContext(context.Background()) // the next read or write returns the error
	return c.tls.ConnectionState()
}

// LocalAddr is the address of this side.
func (c *TLSConn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr is the address of the peer.
func (c *TLSConn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// SetDeadline bounds reads and writes.
func (c *TLSConn) SetDeadline(t time.Time) error { return c.deadline(t, c.wire.Conn.SetDeadline) }

// SetReadDeadline bounds reads.
func (c *TLSConn) SetReadDeadline(t time.Time) error {
	return c.deadline(t, c.wire.Conn.SetReadDeadline)
}

// SetWriteDeadline bounds writes.
func (c *TLSConn) SetWriteDeadline(t time.Time) error {
	return c.deadline(t, c.wire.Conn.SetWriteDeadline)
}

// deadline sets a deadline, unless Close has set its own.
func (c *TLSConn) deadline(t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.err != nil {
		return net.ErrClosed
	}
	return set(t)
}
