package mslhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

func networks(texts ...string) (t TrustedProxies) {
	for _, text := range texts {
		t = append(t, netip.MustParsePrefix(text))
	}
	return t
}

func TestSource(t *testing.T) {
	trusted := networks("10.0.0.0/8", "fd00::/8", "192.0.2.7/32")
	const proxy, peer = "10.1.2.3:40000", "198.51.100.1:40000"
	for _, test := range []struct{ remote, listed, forwarded, want string }{
		{peer, "", "", "198.51.100.1"},
		{peer, "203.0.113.9", "for=203.0.113.9", "198.51.100.1"}, // not a trusted proxy
		{proxy, "", "", "10.1.2.3"},
		{proxy, "203.0.113.9", "", "203.0.113.9"},
		{proxy, "1.1.1.1, 203.0.113.9", "", "203.0.113.9"}, // the client wrote the first
		{proxy, "203.0.113.9, 192.0.2.7, 10.9.9.9", "", "203.0.113.9"},
		{proxy, "1.1.1.1|203.0.113.9,10.9.9.9", "", "203.0.113.9"},
		{proxy, "10.9.9.9, 10.8.8.8", "", "10.9.9.9"},
		{proxy, "203.0.113.9, garbage", "", "10.1.2.3"},
		{proxy, "203.0.113.9,", "", "10.1.2.3"},
		{proxy, "203.0.113.9:51111", "", "203.0.113.9"},
		{proxy, "::ffff:203.0.113.9", "", "203.0.113.9"},
		{proxy, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"},
		{proxy, "[2001:db8:1:2::7]:443", "", "2001:db8:1:2::/64"},
		{"[fd00::1]:40000", "2001:db8::1, fd12::5", "", "2001:db8::/64"},
		{"[::ffff:10.1.2.3]:40000", "203.0.113.9", "", "203.0.113.9"},
		{"[2001:db8::1%eth0]:40000", "", "", "2001:db8::/64"},
		{proxy, "", "for=203.0.113.9", "203.0.113.9"},
		{proxy, "", "For=\"203.0.113.9:4711\";proto=http;by=10.1.2.3", "203.0.113.9"},
		{proxy, "", "proto=https;for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::/64"},
		{proxy, "", "for=1.1.1.1, for=203.0.113.9;host=\"a,b;c\"", "203.0.113.9"},
		{proxy, "", "for=1.1.1.1|for=203.0.113.9", "203.0.113.9"},
		{proxy, "", "for=203.0.113.9, for=10.3.3.3", "203.0.113.9"},
		{proxy, "", "for=\"203.0.113.\\9\"", "203.0.113.9"},
		{proxy, "", "for=203.0.113.9, for=unknown", "10.1.2.3"},
		{proxy, "", "for=_hidden", "10.1.2.3"},
		{proxy, "", "for=203.0.113.9, proto=http", "10.1.2.3"},
		{proxy, "", "for=203.0.113.9 for=1.1.1.1", "10.1.2.3"},
		{proxy, "", "for=\"203.0.113.9", "10.1.2.3"},
		{proxy, "", "203.0.113.9", "10.1.2.3"},
		{proxy, "203.0.113.9", "for=203.0.113.9", "203.0.113.9"},
		{proxy, "203.0.113.9", "for=1.1.1.1", "10.1.2.3"}, // one of them is the client's
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.RemoteAddr = test.remote
		for name, lines := range map[string]string{"X-Forwarded-For": test.listed, "Forwarded": test.forwarded} {
			for line := range strings.SplitSeq(lines, "|") {
				if line != "" {
					r.Header.Add(name, line)
				}
			}
		}
		if got := trusted.Source(r); got != test.want {
			t.Errorf("%s, X-Forwarded-For %q, Forwarded %q: %s, want %s", test.remote, test.listed, test.forwarded, got, test.want)
		}
	}
}

// FuzzForwarded checks that no header causes a panic, and that the element which the
// proxy adds last decides.
func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{`for=1.2.3.4`, `for="[2001:db8::1]:47";by=x`, `for="a\"b,c";;,`, `=`, `for`, ` , `} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		forwardedFor([]string{text})
		all := forwardedFor([]string{text, "for=192.0.2.1"})
		if len(all) > 0 && all[len(all)-1] != "192.0.2.1" {
			t.Errorf("%q: %q", text, all)
		}
	})
}

// TestPROXY has connections of a proxy that is trusted to name its clients, and of one
// that is not.
func TestPROXY(t *testing.T) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc6\x33\x64\x01\x10\x00\x00\x50"
	for _, test := range []struct {
		name, header, want string
		trusted            TrustedProxies
	}{
		{"version 1", "PROXY TCP4 203.0.113.9 198.51.100.1 4096 80\r\n", "203.0.113.9", networks("127.0.0.0/8")},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 4096 80\r\n", "2001:db8::/64", networks("127.0.0.0/8")},
		{"version 2", v2, "203.0.113.9", networks("127.0.0.0/8")},
		{"unknown", "PROXY UNKNOWN\r\n", "127.0.0.1", networks("127.0.0.0/8")},
		{"not trusted, without", "", "127.0.0.1", networks("10.0.0.0/8")},
		{"not trusted", "PROXY TCP4 203.0.113.9 198.51.100.1 4096 80\r\n", "", networks("10.0.0.0/8")},
		{"trusted, without", "", "", networks("127.0.0.0/8")},
		{"trusted, with junk", "PROXY TCP4 nobody\r\n", "", networks("127.0.0.0/8")},
	} {
		t.Run(test.name, func(t *testing.T) {
			var source string
			s := httptest.NewUnstartedServer(&Handler{
				Server: noneServer(t), Source: func(r *http.Request) string { source = test.trusted.Source(r); return source },
				Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					_, err := io.Copy(w, m.Body)
					return err
				},
			})
			s.Listener = test.trusted.Listen(s.Listener)
			s.Start()
			defer s.Close()
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(c, "%sPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{]", test.header)
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if served := err == nil && r.StatusCode == 200; served != (test.want != "") || source != test.want {
				t.Errorf("served %v for %q, want %q", served, source, test.want)
			}
		})
	}
}
