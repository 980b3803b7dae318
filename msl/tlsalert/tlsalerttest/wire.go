package tlsalerttest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

const (
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
)

// A State is a point in the life of a connection.
type State int

// The states. DuringHandshake is after the server's hello.
const (
	BeforeHello State = iota
	DuringHandshake
	AfterHandshake
)

// String names the state.
func (s State) String() string {
	return [...]string{"before hello", "during the handshake", "after the handshake"}[s]
}

// A Wire is one connection between a client and a server. One of them is the victim,
// which receives alerts as if its peer had sent them.
type Wire struct {
	Keys   *Keys // the KeyLogWriter of the server's tls.Config
	Client bool  // the victim is the client
	Alert  [2]byte
	At     State // when Alert is sent; AfterHandshake means only by Inject

	// Mangle, if not nil, changes each record that the peer sends, header included. n
	// is the number of records before it.
	Mangle func(n int, record []byte) []byte

	victim, peer net.Conn // ends of the wire
	left         chan struct{}

	mu           sync.Mutex
	version      uint16
	suite        uint16
	serverRandom []byte
	sent         []byte
	passed       int
	err          error
}

// Dial connects a client to the server at addr, and returns the client's end.
func (w *Wire) Dial(addr string) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	end, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	client, err := l.Accept()
	if err != nil {
		return nil, err
	}
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	w.victim, w.peer, w.left = server, client, make(chan struct{})
	if w.Client {
		w.victim, w.peer = client, server
	}
	if w.At == BeforeHello {
		if err := w.give([]byte{recordAlert, 3, 1, 0, 2, w.Alert[0], w.Alert[1]}); err != nil {
			return nil, err
		}
	}
	go w.toPeer()
	go w.toVictim()
	return end, nil
}

// Close closes the connection to both ends.
func (w *Wire) Close() error { return errors.Join(w.victim.Close(), w.peer.Close()) }

// Left returns a channel that is closed when the victim has closed its direction.
func (w *Wire) Left() <-chan struct{} { return w.left }

// Sent returns everything that the victim has sent so far.
func (w *Wire) Sent() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

// Passed returns how many of the peer's records have been passed to the victim so far.
func (w *Wire) Passed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passed
}

// Err returns why an alert could not be injected, or nil.
func (w *Wire) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Wire) toPeer() {
	defer close(w.left)
	for {
		record, err := ReadRecord(w.victim)
		w.mu.Lock()
		w.sent = append(w.sent, record...)
		w.mu.Unlock()
		if err != nil {
			w.peer.(*net.TCPConn).CloseWrite()
			return
		}
		w.note(record)
		w.peer.Write(record)
	}
}

func (w *Wire) toVictim() {
	for n := 0; ; n++ {
		record, err := ReadRecord(w.peer)
		if w.Mangle != nil && err == nil {
			record = w.Mangle(n, record)
		}
		w.give(record)
		if err != nil {
			w.victim.(*net.TCPConn).CloseWrite()
			return
		}
		w.note(record)
		w.mu.Lock()
		w.passed++
		w.mu.Unlock()
	}
}

// give lets the victim read b.
func (w *Wire) give(b []byte) error {
	_, err := w.victim.Write(b)
	return err
}

// ReadRecord reads one record with its header. If the record is not complete, it
// returns the part that was read, and an error.
func ReadRecord(r io.Reader) ([]byte, error) {
	record := make([]byte, 5)
	if n, err := io.ReadFull(r, record); err != nil {
		return record[:n], err
	}
	record = append(record, make([]byte, binary.BigEndian.Uint16(record[3:]))...)
	n, err := io.ReadFull(r, record[5:])
	return record[:5+n], err
}

// note reads the server's hello, and then sends the alert if it is due during the
// handshake.
func (w *Wire) note(record []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.version != 0 || len(record) < 44 || record[0] != recordHandshake || record[5] != 2 {
		return
	}
	rest := record[44+int(record[43]):]
	w.serverRandom, w.suite, w.version = slices.Clone(record[11:43]), binary.BigEndian.Uint16(rest), tls.VersionTLS12
	if w.suite>>8 == 0x13 {
		w.version = tls.VersionTLS13
	}
	if w.At != DuringHandshake {
		return
	}
	alert := []byte{recordAlert, 3, 3, 0, 2, w.Alert[0], w.Alert[1]}
	if w.version == tls.VersionTLS13 {
		alert, w.err = w.seal(recordAlert, w.Alert[:], "HANDSHAKE_TRAFFIC_SECRET", 0)
	}
	w.give(alert)
}

// Inject makes the victim read an alert after the handshake. records is the number of
// records that the peer has sent since its Finished message; a session ticket of TLS
// 1.3 counts as one.
func (w *Wire) Inject(level, alert byte, records uint64) error {
	return w.InjectRecord(recordAlert, []byte{level, alert}, records)
}

// InjectRecord is [Wire.Inject] for any kind of record, of up to 200 bytes.
func (w *Wire) InjectRecord(kind byte, data []byte, records uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	record, err := w.seal(kind, data, "TRAFFIC_SECRET_0", records)
	if err != nil {
		return err
	}
	return w.give(record)
}

func (w *Wire) seal(kind byte, data []byte, secret string, records uint64) ([]byte, error) {
	peer := "CLIENT_"
	if w.Client {
		peer = "SERVER_"
	}
	switch w.suite {
	case tls.TLS_AES_128_GCM_SHA256:
		s, err := w.Keys.sealer13(peer + secret)
		if err != nil {
			return nil, err
		}
		return s.seal13(kind, data, records), nil
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
		s, err := w.Keys.sealer12(!w.Client, w.serverRandom)
		if err != nil {
			return nil, err
		}
		return s.seal12(kind, data, records+1), nil // Finished was the first
	}
	return nil, fmt.Errorf("tlsalerttest: no server hello was seen, or cipher suite %s", tls.CipherSuiteName(w.suite))
}
