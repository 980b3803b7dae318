package config

import (
	"net"
	"net/url"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Stream is where connections that last are taken, for many messages and for channels.
type Stream struct {
	Path   string `yaml:"path"`                            // of the URL of its WebSockets, at server.listen; "none": no WebSockets
	Listen string `yaml:"listen" example:"127.0.0.1:8081"` // address for TCP, with TLS if server.tls has certificates; default: none
}

// Peer is where peers connect that issue tokens for this server, as it does for them.
type Peer struct {
	Path         string       `yaml:"path" example:"/peer"`                         // of the URL of its WebSockets; default: none
	Listen       string       `yaml:"listen" example:"127.0.0.1:8082"`              // address for TCP, as of stream; default: none
	KeyExchanges exchangeList `yaml:"key-exchanges" example:"[ASYMMETRIC_WRAPPED]"` // offered to peers, best first; default: SYMMETRIC_WRAPPED with psk-keys, else ASYMMETRIC_WRAPPED
}

// Push is where clients wait for messages that the server sends by itself.
type Push struct {
	Path   string `yaml:"path" example:"/push"`                       // of the URL of its WebSockets; default: none
	Listen string `yaml:"listen" example:"127.0.0.1:8083"`            // address for TCP, as of stream; default: none
	From   string `yaml:"from" example:"unix:/run/msl-hsm-push.sock"` // where programs of this machine post them: a socket, or a loopback address
}

// checkStreams wants distinct paths and addresses.
func (s *Server) checkStreams() error {
	taken := map[string]string{}
	if s.Enrollment.State != "" {
		taken[s.Enrollment.Path] = "server.enrollment"
	}
	if s.Failures.Log != "" {
		taken[s.Failures.Path] = "server.failures"
	}
	for _, place := range []struct{ name, path, listen string }{
		{"server.stream", s.Stream.Path, s.Stream.Listen},
		{"server.peer", s.Peer.Path, s.Peer.Listen},
		{"server.push", s.Push.Path, s.Push.Listen},
	} {
		if other := taken[place.path]; place.path != "none" && place.path != "" && other != "" {
			return exit.Usagef("%s.path is %q, and so is %s.path: give it another one", other, place.path, place.name)
		}
		taken[place.path] = place.name
		if p := place.path; p != "" && p != "none" && (p[0] != '/' || strings.ContainsAny(p, "{} ?#%")) {
			return exit.Usagef("%s.path is %q: want a path as /peer", place.name, p)
		}
		if _, _, err := net.SplitHostPort(place.listen); place.listen != "" && err != nil {
			return exit.Usagef("%s.listen is %q: want HOST:PORT, such as 127.0.0.1:8081", place.name, place.listen)
		}
	}
	if waits := s.Push.Path != "" || s.Push.Listen != ""; waits != (s.Push.From != "") {
		return exit.Usagef("server.push needs both: from, where messages are posted, and path or listen, where clients wait for them")
	}
	return nil
}

// streamSchemes are the schemes of URLs whose connections last, with those of the
// HTTP request that begins a WebSocket.
var streamSchemes = map[string]string{"tcp": "", "tls": "", "ws": "http", "wss": "https"}

// Lasts reports whether the URL of the server is one of a connection that lasts.
func (c *Client) Lasts() bool {
	u, err := url.Parse(c.URL)
	if err != nil {
		return false
	}
	_, lasts := streamSchemes[u.Scheme]
	return lasts
}

// CheckAnyURL is CheckURL for a client that also makes connections that last, of which
// it needs one for that purpose, if one is named.
func (c *Client) CheckAnyURL(purpose string) error {
	const want = "http://HOST:PORT/ or https://HOST/PATH, or ws, wss, tcp or tls in place of http"
	u, err := url.Parse(c.URL)
	if err == nil && u.User == nil && c.Lasts() {
		if u.Host == "" || (u.Scheme == "tcp" || u.Scheme == "tls") && (u.Port() == "" || strings.Trim(u.Path, "/") != "") {
			return exit.Usagef("URL of the server %q: want tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST/PATH", c.URL)
		}
		return nil
	}
	if purpose != "" {
		return exit.Usagef("URL of the server %q: %s needs a connection that lasts: give tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST/PATH", c.URL, purpose)
	}
	if err := checkWebURL("URL of the server", c.URL, want); err != nil {
		return err
	}
	return nil
}
