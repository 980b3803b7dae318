// Package weborigin tells the requests of programs on this machine from those that a web
// browser sends for a page. A page of any site can send requests to a loopback address, and
// even read the responses if its own name was made to point there (DNS rebinding).
package weborigin

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

var (
	// ErrPage: a web browser sent the request.
	ErrPage = errors.New("this address serves programs, not web pages")
	// ErrHost: the request is for another machine.
	ErrHost = errors.New("the Host header names another host: use localhost or 127.0.0.1")
)

// Check refuses requests from web browsers, and requests for another host, since a web page
// may have pointed its own name at this machine. Pages cannot connect to a Unix socket, so
// there the Host header does not matter.
//
// If it is strict, not even a GET may come from a page, such as one for an image. Not every
// browser marks such a GET with Sec-Fetch-Site, but each has a User-Agent that begins with
// Mozilla, which a page cannot change without a preflight request.
func Check(r *http.Request, strict bool) error {
	switch {
	case fromPage(r.Header), strict && !byUnixSocket(r) && fromBrowser(r.Header):
		return ErrPage
	case !byUnixSocket(r) && !IsLocal(r.Host):
		return ErrHost
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

// IsLocal reports whether the value of a Host header names this machine, at any port: a
// tunnel may have another one.
func IsLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && ip.IsLoopback()
}
