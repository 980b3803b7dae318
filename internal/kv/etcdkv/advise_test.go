//go:build !noetcd

package etcdkv

import (
	"errors"
	"testing"
)

// TestAdvise guesses at TLS only before etcd ever answered: later the network is to blame.
func TestAdvise(t *testing.T) {
	const ended = "the connection ended, and it answered before: check that it is running, and the network in between"
	for _, c := range []struct{ text, first, later string }{
		{`connection error: desc = "error reading server preface: read tcp: use of closed network connection"`,
			"it does not answer: check that most of its members run; if it expects TLS or a client certificate, use https, and configure one", ended},
		{`connection error: desc = "error reading server preface: EOF"`,
			"it may expect TLS or a client certificate: use https, and configure one", ended},
		{"write tcp: broken pipe", "it ends the connection: if it asks for a client certificate, configure one", ended},
		{"read tcp: connection reset by peer", "it ends the connection: if it asks for a client certificate, configure one", ended},
		{"authentication handshake failed: EOF", "it does not speak TLS: use http, or give etcd a certificate", ended},
		{"dial tcp: connection refused", "nothing listens there: check that etcd is running", "nothing listens there: check that etcd is running"},
		{"tls: certificate has expired", "its certificate has expired, or the clock of this machine is wrong", "its certificate has expired, or the clock of this machine is wrong"},
		{"rpc error: code = Unavailable desc = etcdserver: no leader", "it cannot reach most of the members: check that they run, and the network in between", "it cannot reach most of the members: check that they run, and the network in between"},
		{"something else", "", ""},
	} {
		if got := advise(c.text, false); got != c.first {
			t.Errorf("%q at first: %q, want %q", c.text, got, c.first)
		}
		if got := advise(c.text, true); got != c.later {
			t.Errorf("%q later: %q, want %q", c.text, got, c.later)
		}
	}
}

// TestPassedOn is late as one that was not answered: a member waited for others.
func TestPassedOn(t *testing.T) {
	c := &cluster{config: Config{Endpoints: []string{"http://a"}}}
	err := c.explain(errors.New("rpc error: code = Unknown desc = context deadline exceeded"))
	wantErr(t, err, nil, "etcd at http://a does not answer: check that most of its members run")
}
