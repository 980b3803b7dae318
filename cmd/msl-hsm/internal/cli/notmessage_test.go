package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// sendTo runs send with the site's device, and changes of its configuration.
func (s *site) sendTo(url, limits, data string) (string, error) {
	s.Helper()
	s.write("limits.yaml", "client:\n  url: "+url+"\n  psk: camera.psk\n  server-key: server.pem\n  limits: {"+limits+"}\n")
	var out bytes.Buffer
	p := &program{defaults: cheap, stdout: &out, stderr: io.Discard, stdin: strings.NewReader("")}
	p.flags.config = s.path("limits.yaml")
	err := runSend(p, context.Background(), nil, config.Client{}, sendFlags{data: data}, true)
	return out.String(), err
}

// TestSendNotMessage has something else than an MSL server answer with status 200.
func TestSendNotMessage(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	for name, c := range map[string]struct{ kind, body, want string }{
		"HTML":               {"text/html; charset=utf-8", "<!doctype html><title>Sign in</title>", "answered HTML, not MSL: check the URL"},
		"HTML by its look":   {"", "<html>", "answered HTML, not MSL"},
		"text":               {"text/plain", "OK", "did not answer with an MSL message: check the URL"},
		"nothing":            {"", "", "answered with an empty body, not MSL: check the URL"},
		"JSON":               {"application/json", `{"error":"not found"}`, "did not answer with an MSL message: check the URL"},
		"a JSON array":       {"application/json", `[1]`, "did not answer with an MSL message: check the URL"},
		"broken JSON":        {"application/json", `{"error":}`, "did not answer with an MSL message: check the URL"},
		"half a header":      {"", `{"entityauthdata":{"scheme":"RSA"`, "ends within its header"},
		"a header, and then": {"", `{"headerdata":"eyJh`, "ends within its header"},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if c.kind != "" {
					w.Header().Set("Content-Type", c.kind)
				}
				io.WriteString(w, c.body)
			}))
			defer web.Close()
			_, err := s.sendTo(web.URL, "", "x")
			if err == nil || exit.Code(err) != exit.NoAnswer || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("exit code %d: %v", exit.Code(err), err)
			}
		})
	}
}

// TestSendNotHTTP has something at the URL that is not a server of messages, and does not speak HTTP.
func TestSendNotHTTP(t *testing.T) {
	s := newSite(t)
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	const hasTLS, alert = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", "\x15\x03\x01\x00\x02\x02\x46"
	for name, c := range map[string]struct{ scheme, says, want string }{
		"TLS, in words":    {"http", hasTLS, "instead of a message: its port has TLS: write https:// in the URL"},
		"another 400":      {"http", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno", "check that the URL is that of an MSL server"},
		"TLS, by an alert": {"http", alert, "that port has TLS: write https://"},
		"no TLS, but SSH":  {"https", "SSH-2.0-x\r\n", "does not speak TLS: check the port"},
		"ws to TLS":        {"ws", hasTLS, "that port has TLS: write wss://"},
		"ws to an alert":   {"ws", alert, "that port has TLS: write https:// in the URL (wss:// instead of ws://)"},
		"ws to SMTP":       {"ws", "220 mail.example.com\r\n", "does not speak HTTP: check the URL"},
		"ws in a circle":   {"ws", "HTTP/1.1 302 Found\r\nLocation: /\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "answered HTTP 302 Found"},
		"wss to no TLS":    {"wss", "HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP without TLS there: write http:// in the URL (ws:// instead of wss://)"},
		"tcp to TLS":       {"tcp", alert, "that port has TLS: write tls://"},
		"tcp to HTTP":      {"tcp", "HTTP/1.1 400 Bad Request\r\n\r\n", "that port speaks HTTP: write http:// or ws://"},
		"tls to no TLS":    {"tls", "SSH-2.0-x\r\n", "does not speak TLS: check the port"},
		"tls to nothing":   {"tls", "", "closed the connection without an answer"},
		"SSH":              {"http", "SSH-2.0-x\r\n", "does not speak HTTP: check the URL"},
		"nothing":          {"http", "", "closed the connection without an answer"},
		"no TLS":           {"https", "HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP without TLS there: write http://"},
		"another":          {"http", "HTTP/1.1 302 Found\r\nLocation: " + other.URL + "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "answered HTTP 302 Found instead of a message: check that the URL"},
		"a circle":         {"http", "HTTP/1.1 308 Permanent Redirect\r\nLocation: /\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "answered HTTP 308"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					conn.Read(make([]byte, 64<<10))
					io.WriteString(conn, c.says)
					conn.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, conn) // or what is on its way would be answered by a reset
				}()
			}
		}()
		path := "/"
		if c.scheme == "tcp" || c.scheme == "tls" {
			path = ""
		}
		_, err = s.sendTo(c.scheme+"://"+l.Addr().String()+path, "", "x")
		l.Close()
		if err == nil || exit.Code(err) != exit.NoAnswer || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: exit code %d: %v", name, exit.Code(err), err)
		}
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("the message was taken elsewhere, %d times", n)
	}
}

// TestSendLimits raises and lowers what an answer may cost.
func TestSendLimits(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	data := strings.Repeat("0123456789abcdef", 20000)
	for _, c := range []struct{ limits, want string }{
		{"", ""}, {"chunk: 1000000", ""},
		{"chunk: 10000, header: 10000", "client.limits.chunk"},
		{"header: 100, chunk: 100", "client.limits.header"},
		{"answer: 5000", "client.limits.answer"}, {"depth: 3", ""}, {"depth: 2", "client.limits.depth"}, {"tokens: 1", ""},
	} {
		got, err := s.sendTo(s.url, c.limits, data)
		switch {
		case c.want == "" && (err != nil || got != data):
			t.Errorf("%s: %d bytes, %v", c.limits, len(got), err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), msl.ErrMSLParseError.Text())):
			t.Errorf("%s: %v", c.limits, err)
		}
	}
	if _, err := s.sendTo(s.url, "chunk: -1", data); exit.Code(err) != exit.Usage {
		t.Errorf("a chunk of less than nothing: %v", err)
	}
}
