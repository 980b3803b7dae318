package cli

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// lines VAR NAME… gives each line of a variable a name. That of an HTTP server loses its
// scheme, to be used with another one.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	for i, line := range strings.Split(ts.Getenv(args[0]), "\n") {
		if i+1 < len(args) {
			ts.Setenv(args[i+1], strings.TrimPrefix(strings.TrimPrefix(line, "http:"), "https:"))
		}
	}
}

// push SOCKET ENTITY TEXT posts a message for a client, once that waits.
func push(ts *testscript.TestScript, _ bool, args []string) {
	web := socketClient(ts.MkAbs(args[0]))
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r, err := web.Post("http://push/"+args[1], "text/plain", strings.NewReader(args[2]))
		ts.Check(err)
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("nobody waits")
}

// socketClient sends HTTP requests to a Unix socket.
func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}
