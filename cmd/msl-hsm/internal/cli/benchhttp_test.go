//go:build cgo && !nopkcs11

package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// serveHTTP serves as the command does, on a port of its own, and returns its address.
func (b *bench) serveHTTP() string {
	b.Helper()
	discard := slog.New(slog.DiscardHandler)
	bounds := &mslhttp.Connections{}
	answers := &mslhttp.Handler{Server: b.server, Handle: b.handle, Log: discard}
	s := serverside.HTTPServer(bounds, answers, discard)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(bounds.Listen(l))
	b.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// recorded is a request of a session of its own: the bytes of its HTTP, for a client that
// costs as little as it can. Nothing keeps a client from sending a message again.
func (b *bench) recorded(c *msl.Client) []byte {
	message := b.record(c, true)[0]
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", len(message))
	return append([]byte(head), message...)
}

// A keptConnection sends the same request again and again.
type keptConnection struct {
	net.Conn
	answers *bufio.Reader
	request []byte
}

func (b *bench) connect(address string, request []byte) *keptConnection {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &keptConnection{conn, bufio.NewReader(conn), request}
}

// exchange sends the request, and reads the answer by its length.
func (c *keptConnection) exchange() error {
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	length, status := 0, 0
	for {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 ")); ok {
			fmt.Sscan(string(rest[:3]), &status)
		}
		if rest, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, d := range bytes.TrimSpace(rest) {
				length = 10*length + int(d-'0')
			}
		}
	}
	if status != http.StatusOK || length < 1024 {
		return fmt.Errorf("HTTP %d with %d bytes", status, length)
	}
	_, err := c.answers.Discard(length)
	return err
}

// BenchmarkKeptHTTP is a server with some kept connections, on each of which one message of
// 1 KiB after the other is sent. What sends it only copies bytes, as load generators do.
func BenchmarkKeptHTTP(b *testing.B) {
	for _, place := range benchStores {
		for _, connections := range []int{1, 2, 4, 64} {
			b.Run(fmt.Sprintf("%s/%d", place.name, connections), func(b *testing.B) {
				n := newBench(b, place.open(b))
				address, client := n.serveHTTP(), n.device("PSK")
				kept := make([]*keptConnection, connections)
				for i := range kept {
					kept[i] = n.connect(address, n.recorded(client()))
				}
				timed(b, n, connections, func(i int) error { return kept[i].exchange() })
			})
		}
	}
}

// Each message of the benchmark is answered, on the same connection.
func TestKeptConnection(t *testing.T) {
	n := newBench(t, benchStores[0].open(t))
	kept := n.connect(n.serveHTTP(), n.recorded(n.device("PSK")()))
	for range 3 {
		if err := kept.exchange(); err != nil {
			t.Fatal(err)
		}
	}
	kept.request = []byte("POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n")
	if err := kept.exchange(); err == nil {
		t.Error("an error message is taken for the answer")
	}
}
