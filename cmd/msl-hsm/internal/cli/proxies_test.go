package cli

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// flood COUNT URL HEADER posts garbage that often.
func flood(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	name, value, _ := strings.Cut(args[2], ": ")
	for range n {
		r, err := http.NewRequest(http.MethodPost, args[1], strings.NewReader("garbage"))
		ts.Check(err)
		r.Header.Set(name, value)
		response, err := http.DefaultClient.Do(r)
		ts.Check(err)
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

// proxied URL HEADER VAR is a proxy that says by a line who connects, with its URL in
// a variable.
func proxied(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[2], "http://"+l.Addr().String()+"/")
	to := strings.Trim(strings.TrimPrefix(args[0], "http://"), "/")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			io.WriteString(server, args[1]+"\r\n")
			go func() { io.Copy(server, c); server.Close() }()
			go func() { io.Copy(c, server); c.Close() }()
		}
	}()
}
