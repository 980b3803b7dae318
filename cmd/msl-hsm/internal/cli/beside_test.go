package cli

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// TestBesideConnections has a user of this machine open connections to the operators' pages and
// ask for nothing: devices keep their file descriptors, and the pages are still answered.
func TestBesideConnections(t *testing.T) {
	l, err := net.Listen("tcp", porttest.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	var open atomic.Int64
	server := &http.Server{
		Handler: http.NotFoundHandler(),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	(&besideServing{server, l, ""}).Start()
	t.Cleanup(func() { server.Close() })
	for range 2 * besideConnections {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	await(t, "an answer", func() bool {
		answer, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			answer.Body.Close()
		}
		return err == nil
	})
	await(t, "others to be closed", func() bool { return open.Load() <= besideConnections })
}
