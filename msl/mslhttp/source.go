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

// SourceOf returns the source that an address, with or without a port, belongs to: an IPv4
// address, or the first half of an IPv6 address, since one network can use any number of
// those (RFC 6177). Text that is not an address is its own source.
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

// parseAddress reads an address with or without a port. An IPv6 address may be in
// brackets; its zone is dropped.
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

// TrustedProxies are the networks of proxies and load balancers that are trusted to say
// where a connection or a request comes from. Each of them must itself set the header, or
// begin the connection with the PROXY protocol: otherwise its clients can claim any
// source.
type TrustedProxies []netip.Prefix

func (t TrustedProxies) trusts(ip netip.Addr) bool {
	return slices.ContainsFunc(t, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// Source returns where a request comes from, for [Handler.Source]. This is [SourceOf] of
// the last address that does not belong to a trusted proxy, among those in
// X-Forwarded-For or Forwarded (RFC 7239) and that of the connection itself. If a proxy
// gives no address, the source is the proxy. It is also the proxy if the two headers
// disagree: a proxy that sets one of them forwards the other as a client wrote it.
func (t TrustedProxies) Source(r *http.Request) string {
	if ip, ok := t.address(r); ok {
		return sourceOf(ip)
	}
	return SourceOf(r.RemoteAddr)
}

// address returns the address that Source is based on, if there is one.
func (t TrustedProxies) address(r *http.Request) (netip.Addr, bool) {
	last, ok := parseAddress(r.RemoteAddr)
	if !ok || !t.trusts(last) {
		return last, ok
	}
	forwarded, listed := r.Header.Values("Forwarded"), r.Header.Values("X-Forwarded-For")
	address := t.walk(last, commaList(listed))
	if len(forwarded) == 0 {
		return address, true
	}
	told := t.walk(last, forwardedFor(forwarded))
	if len(listed) > 0 && sourceOf(told) != sourceOf(address) {
		return last, true
	}
	return told, true
}

// walk goes back from the last proxy through the trusted ones.
func (t TrustedProxies) walk(last netip.Addr, path []string) netip.Addr {
	for _, hop := range slices.Backward(path) {
		ip, ok := parseAddress(hop)
		if !ok { // may be "unknown", or a name chosen by the proxy
			break
		}
		if last = ip; !t.trusts(ip) {
			break
		}
	}
	return last
}

// commaList returns the elements of a header that may have several lines.
func commaList(lines []string) (all []string) {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			all = append(all, strings.Trim(element, " \t"))
		}
	}
	return all
}

// forwardedFor returns the "for" parameters of a Forwarded header, empty for an element
// without one (RFC 7239 section 4), or nil if the header cannot be parsed.
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

// forwardedPair reads name=value, where the value may be quoted. The text after it is
// empty or begins with ; or a comma. The pair may be empty.
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

// proxyPatience is how long a proxy may take to send its PROXY header.
const proxyPatience = 5 * time.Second

// Listen returns a listener whose connections have the address that a trusted proxy gives
// in the PROXY protocol, version 1 or 2. A trusted proxy must speak it. Other peers keep
// their own address, and what they send is never read as a PROXY header.
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

// Accept returns a connection whose sending direction can be closed separately.
func (l proxiedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if proxied, ok := c.(*proxyproto.Conn); ok {
		return proxiedConn{proxied}, nil
	}
	return c, err
}

type proxiedConn struct{ *proxyproto.Conn }

// CloseWrite closes the sending direction.
func (c proxiedConn) CloseWrite() error {
	half, ok := c.Raw().(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}
