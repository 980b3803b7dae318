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
//
// If any request may act on a service, a page must not cause even a GET, as an image
// does. Not every browser marks such a GET with Sec-Fetch-Site, but each has a User-Agent
// that begins with Mozilla, which a page cannot change without a preflight request.
func checkOrigin(r *http.Request, whole bool) *refusal {
	switch {
	case fromPage(r.Header), whole && !byUnixSocket(r) && fromBrowser(r.Header):
		return &refusal{status: http.StatusForbidden, Error: "the agent serves programs, not web pages"}
	case !byUnixSocket(r) && !isLocal(r.Host):
		return &refusal{status: http.StatusForbidden, Error: "the Host header names another host: use localhost or 127.0.0.1"}
	}
	return nil
}

// fromPage reports whether a request has headers that browsers set for pages. They count
// even if they are empty.
func fromPage(h http.Header) bool {
	for name := range h {
		if name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") || strings.HasPrefix(name, "Access-Control-Request-") {
			return true
		}
	}
	return false
}

func fromBrowser(h http.Header) bool {
	return h["Referer"] != nil || strings.HasPrefix(strings.TrimSpace(h.Get("User-Agent")), "Mozilla/")
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
