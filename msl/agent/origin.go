package agent

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// checkOrigin refuses requests from web browsers, which send them for any page, and
// requests for another host, since a web page may have pointed its own name at this
// machine. Pages cannot connect to a Unix socket, so there the Host header does not
// matter.
func checkOrigin(r *http.Request) *refusal {
	switch {
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return &refusal{status: http.StatusForbidden, Error: "the agent serves programs, not web pages"}
	case !byUnixSocket(r) && !isLocal(r.Host):
		return &refusal{status: http.StatusForbidden, Error: "the Host header names another host: use localhost or 127.0.0.1"}
	}
	return nil
}

func byUnixSocket(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && at.Network() == "unix"
}

// isLocal reports whether the value of a Host header names this machine.
func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && ip.IsLoopback()
}
