package msl_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestChannelFirst opens a channel with the first message of a client: the handshake
// for the tokens comes before it, and nothing is read of the channel meanwhile. So it is
// when the tokens have become old.
func TestChannelFirst(t *testing.T) {
	for name, carry := range carriers {
		for scheme, make := range map[string]func(*network) *msl.Client{
			"PSK": func(n *network) *msl.Client { return n.pskClient("device") },
			"RSA": func(n *network) *msl.Client { return n.rsaClient("device") },
		} {
			t.Run(name+"/"+scheme, func(t *testing.T) {
				n := softNetwork(t)
				n.handler = shout
				c := make(n)
				carry(t, n, c)
				for _, later := range []time.Duration{0, 2 * time.Hour, 25 * time.Hour} {
					n.now = n.now.Add(later)
					talk(t, func(body io.Reader) (*msl.Response, error) {
						return c.Do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, Interactive: true, RequestTokens: true, Body: msl.ReaderBody(body, 0)})
					})
				}
			})
		}
	}
}

// TestChannelFirstPeers is TestChannelFirst between peers that both issue tokens.
func TestChannelFirstPeers(t *testing.T) {
	for _, scheme := range []string{"PSK", "RSA"} {
		t.Run(scheme, func(t *testing.T) {
			one, two := newSides(t, scheme, scheme)
			channel := func(c *msl.Conn) {
				talk(t, func(body io.Reader) (*msl.Response, error) {
					req := secret2("")
					req.Body, req.Interactive = msl.ReaderBody(body, 0), true
					return c.Request(context.Background(), req)
				})
			}
			for range 2 { // the second time with a token, on a connection on which the peer has none
				first, second := connect(t, one, two)
				done := serveAll(second, shout, 2)
				channel(first)
				channel(first)
				if err := <-done; err != nil {
					t.Error(err)
				}
				old := two.client // a new connection may have a client that holds nothing
				two.client = &msl.Client{Local: old.Local, KeyExchanges: old.KeyExchanges, Capabilities: old.Capabilities, Custody: old.Custody, Time: old.Time}
			}
		})
	}
}

// TestReaderBodyAgain opens a body again while the reader of an earlier try waits for
// more: what came before is read at once.
func TestReaderBodyAgain(t *testing.T) {
	source, ours := io.Pipe()
	open := msl.ReaderBody(source, 0)
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	go fmt.Fprintln(ours, "line")
	if line, err := bufio.NewReader(io.LimitReader(first, 5)).ReadString('\n'); line != "line\n" {
		t.Fatalf("%q, %v", line, err)
	}
	waits := make(chan error, 1)
	go func() {
		got := make([]byte, 10)
		n, err := first.Read(got)
		if err == nil && string(got[:n]) != "more\n" {
			err = fmt.Errorf("the earlier reader got %q", got[:n])
		}
		waits <- err
	}()
	second, err := open()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(second)
	if line, err := lines.ReadString('\n'); line != "line\n" {
		t.Fatalf("%q, %v", line, err)
	}
	go fmt.Fprintln(ours, "more")
	if line, err := lines.ReadString('\n'); line != "more\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
	ours.Close()
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}
