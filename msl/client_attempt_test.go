package msl_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// secret is a request with all protection and tokens.
func secret(body string) *msl.Request {
	return &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, User: "user@example.com",
		Recipient: "server", Body: msl.BytesBody([]byte(body))}
}

func TestFlows(t *testing.T) {
	skipWithRace(t)
	for _, test := range []struct {
		name    string
		client  func(*network) *msl.Client
		change  func(*msl.Request)
		first   int // messages of the first request
		scheme  string
		further int
	}{
		{"PSK", func(n *network) *msl.Client { return n.pskClient("device") }, func(*msl.Request) {}, 2, "SYMMETRIC_WRAPPED", 2},
		{"RSA", func(n *network) *msl.Client { return n.rsaClient("device") }, func(*msl.Request) {}, 4, "", 2},
		{"NONE", func(n *network) *msl.Client { return n.noneClient("device") }, func(*msl.Request) {}, 4, "", 2},
		{"PSK non-replayable", func(n *network) *msl.Client { return n.pskClient("device") }, func(r *msl.Request) { r.NonReplayable = true }, 4, "", 2},
		{"PSK without user", func(n *network) *msl.Client { return n.pskClient("device") }, func(r *msl.Request) { r.User = "" }, 2, "SYMMETRIC_WRAPPED", 2},
		{"NONE in clear", func(n *network) *msl.Client { return n.noneClient("device") }, func(r *msl.Request) { *r = msl.Request{Body: r.Body} }, 2, "ASYMMETRIC_WRAPPED", 2},
		{"no body", func(n *network) *msl.Client { return n.pskClient("device") }, func(r *msl.Request) { r.Body = nil }, 4, "", 2},
		{"long body", func(n *network) *msl.Client { return n.pskClient("device") }, func(r *msl.Request) { r.Body = msl.BytesBody([]byte(strings.Repeat("abcdefgh", 25000))) }, 2, "SYMMETRIC_WRAPPED", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := soft.New()
			defer store.Close()
			n := newNetwork(t, store)
			c := test.client(n)
			for i, messages := range []int{test.first, test.further, test.further} {
				req := secret("hello")
				test.change(req)
				want := ""
				if req.Body != nil {
					b, _ := req.Body()
					want = readAll(t, b)
				}
				r, data, err := send(t, c, req)
				if err != nil {
					t.Fatal(err)
				}
				if data != want {
					t.Fatalf("request %d: got %d bytes of answer, want %d", i, len(data), len(want))
				}
				if r.Messages != messages {
					t.Errorf("request %d: took %d messages, want %d", i, r.Messages, messages)
				}
				if i == 0 && r.KeyExchange != test.scheme || i > 0 && r.KeyExchange != "" {
					t.Errorf("request %d: key exchange %q", i, r.KeyExchange)
				}
			}
		})
	}
}
