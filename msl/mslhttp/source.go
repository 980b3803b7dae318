package mslhttp

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
)

// SourceOf is the source of what comes from an address, with or without a port: an
// IPv4 address, or the first half of an IPv6 address, of which one network has as many
// as it likes (RFC 6177).
func SourceOf(address string) string {
	if ip, ok := parseAddress(address); ok {
		return sourceOf(ip)
	}
	return address
}

func sourceOf(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	network, _ := ip.Prefix(64) // it has 128 bits
	return network.String()
}

// parseAddress reads an address with or without a port, an IPv6 address also in
// brackets, without its zone.
func parseAddress(text string) (netip.Addr, bool) {
	if both, err := netip.ParseAddrPort(text); err == nil {
		return both.Addr().Unmap().WithZone(""), true
	}
	if len(text) > 2 && text[0] == '[' && text[len(text)-1] == ']' {
		text = text[1 : len(text)-1]
	}
	ip, err := netip.ParseAddr(text)
	return ip.Unmap().WithZone(""), err == nil
}

// TrustedProxies are the networks of proxies and load balancers whose word is taken
// for where a connection or a request comes from. Each of them must set the header, or
// begin the connection with the PROXY protocol, by itself: else its clients say where
// they come from.
type TrustedProxies []netip.Prefix

func (t TrustedProxies) trusts(ip netip.Addr) bool {
	return slices.ContainsFunc(t, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// Source names where a request comes from, for [Handler.Source]: [SourceOf] the last
// address that is not of a trusted proxy, among those of X-Forwarded-For or Forwarded
// (RFC 7239) and of the connection itself. What a proxy does not tell comes from the
// proxy, and so does a request whose two headers tell different things: a proxy that
// sets one of them passes the other on as a client wrote it.
func (t TrustedProxies) Source(r *http.Request) string {
	last, ok := parseAddress(r.RemoteAddr)
	if !ok || !t.trusts(last) {
		return SourceOf(r.RemoteAddr)
	}
	forwarded, listed := r.Header.Values("Forwarded"), r.Header.Values("X-Forwarded-For")
	source := t.walk(last, commaList(listed))
	if len(forwarded) == 0 {
		return source
	}
	told := t.walk(last, forwardedFor(forwarded))
	if len(listed) > 0 && told != source {
		return sourceOf(last)
	}
	return told
}

// walk goes back from the last proxy, through those that are trusted.
func (t TrustedProxies) walk(last netip.Addr, path []string) string {
	for _, hop := range slices.Backward(path) {
		ip, ok := parseAddress(hop)
		if !ok { // it may be "unknown" or a name that the proxy made up
			break
		}
		if last = ip; !t.trusts(ip) {
			break
		}
	}
	return sourceOf(last)
}

// commaList is the elements of a header that may come in several lines.
func commaList(lines []string) (all []string) {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			all = append(all, strings.Trim(element, " \t"))
		}
	}
	return all
}

// forwardedFor is the parameters "for" of a Forwarded header, empty where an element
// has none (RFC 7239 section 4). A header that cannot be read tells nothing.
func forwardedFor(lines []string) (all []string) {
	rest := strings.Join(lines, ",")
	for element := ""; ; {
		name, value, after, ok := forwardedPair(rest)
		if !ok {
			return nil
		}
		if strings.EqualFold(name, "for") {
			element = value
		}
		if after == "" || after[0] == ',' {
			all, element = append(all, element), ""
		}
		if after == "" {
			return all
		}
		rest = after[1:]
	}
}

// forwardedPair reads name=value, where the value may be quoted. What comes after it
// begins with ; or , or is nothing. The pair may be empty.
func forwardedPair(text string) (name, value, after string, ok bool) {
	text = strings.TrimLeft(text, " \t")
	end := strings.IndexAny(text, "=;,")
	if end < 0 || text[end] != '=' {
		if end < 0 {
			end = len(text)
		}
		return "", "", text[end:], strings.Trim(text[:end], " \t") == ""
	}
	name, text = text[:end], text[end+1:]
	if strings.HasPrefix(text, `"`) {
		value, text, ok = quoted(text[1:])
	} else if end = strings.IndexAny(text, ";, \t"); end >= 0 {
		value, text, ok = text[:end], text[end:], true
	} else {
		value, text, ok = text, "", true
	}
	after = strings.TrimLeft(text, " \t")
	return name, value, after, ok && (after == "" || after[0] == ';' || after[0] == ',')
}

// quoted reads the rest of a quoted string (RFC 9110 section 5.6.4).
func quoted(text string) (value, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], true
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// proxyPatience is how long a proxy may take to say whom it connects.
const proxyPatience = 5 * time.Second

// Listen returns a listener whose connections have the address that a trusted proxy
// tells by the PROXY protocol, version 1 or 2. A trusted proxy must speak it; others
// cannot: they are who they are, and what they send is no header.
func (t TrustedProxies) Listen(l net.Listener) net.Listener {
	return proxiedListener{&proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: proxyPatience,
		ConnPolicy: func(c proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if ip, ok := parseAddress(c.Upstream.String()); ok && t.trusts(ip) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}}
}

type proxiedListener struct{ net.Listener }

// Accept returns a connection that can be closed in one direction.
func (l proxiedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if proxied, ok := c.(*proxyproto.Conn); ok {
		return proxiedConn{proxied}, nil
	}
	return c, err
}

type proxiedConn struct{ *proxyproto.Conn }

// CloseWrite closes the direction to the peer.
func (c proxiedConn) CloseWrite() error {
	half, ok := c.Raw().(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}
