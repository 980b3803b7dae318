//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// TestMembers asks a member that is well, and one that is not there.
func TestMembers(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL, "http://127.0.0.1:1"}})
	all := d.Members(t.Context())
	if len(all) != 2 || all[0].Err != nil || !all[0].Leader || all[0].Version == "" || all[0].Size == 0 || all[0].Endpoint != m.URL {
		t.Fatalf("%+v", all)
	}
	if all[1].Err == nil || all[1].Leader || !strings.Contains(all[1].Err.Error(), "nothing listens there") {
		t.Errorf("nobody answers there: %+v", all[1])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all := d.Members(ctx); all[0].Err == nil {
		t.Errorf("nobody waits: %+v", all[0])
	}
	if d.Close(); len(d.Members(t.Context())) != 0 {
		t.Error("a store that is closed has members")
	}
}

// TestEachEndpoint opens a cluster of whose endpoints none can be used, each for a reason of its
// own: the error has all, each with its endpoint.
func TestEachEndpoint(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	key, der := ca.issue(t, "etcd")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() { defer c.Close(); _ = c.(*tls.Conn).Handshake() }()
		}
	}()
	stranger, nobody := "https://"+l.Addr().String(), "https://127.0.0.1:1"
	start := time.Now()
	_, err = Open(t.Context(), Config{Endpoints: []string{nobody, stranger}, TLS: &tls.Config{}, DialTimeout: time.Second}, layout(), OpenOrCreate)
	wantErr(t, err, nil, nobody+": nothing listens there")
	wantErr(t, err, nil, stranger+": its certificate is not of a known CA: configure the CA of etcd")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
