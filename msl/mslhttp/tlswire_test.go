package mslhttp

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// plainHello is a client hello of TLS 1.2 without extensions.
func plainHello() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0xc0, 0x2b, 1, 0)
	message := append([]byte{1, 0, 0, byte(len(body))}, body...)
	return append([]byte{22, 3, 1, 0, byte(len(message))}, message...)
}

// TestExtensionAlerts checks that no extension alert goes to a client without
// extensions, although crypto/tls by itself would send one.
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
			setup := &tlsSetup{deny: &l.deny}
			setup.base = &tls.Config{GetConfigForClient: setup.configure}
			l.setup.Store(setup)
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

// TestWireServerHello checks how extensions in a server hello are detected.
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
