package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"go.yaml.in/yaml/v3"
)

// A networkList is a list of networks in CIDR form or single addresses.
type networkList mslhttp.TrustedProxies

// UnmarshalYAML reads a list like [10.0.0.0/8, "2001:db8::7"].
func (l *networkList) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return misplaced{n, fmt.Errorf("must be a list of networks, such as [10.0.0.0/8, 192.0.2.7]")}
	}
	for _, item := range n.Content {
		network, err := netip.ParsePrefix(item.Value)
		if ip, errIP := netip.ParseAddr(item.Value); errIP == nil {
			network, err = ip.Prefix(ip.BitLen())
		}
		switch {
		case err != nil:
			return misplaced{item, fmt.Errorf("%q is not a network: want one like 10.0.0.0/8, or an address", item.Value)}
		case network.Addr().Is4In6():
			return misplaced{item, fmt.Errorf("%q: write it as an IPv4 network", item.Value)}
		case network != network.Masked():
			return misplaced{item, fmt.Errorf("%q has more bits than its network: write %v", item.Value, network.Masked())}
		case network.Bits() == 0:
			return misplaced{item, fmt.Errorf("%q covers every network, so anyone could claim any address", item.Value)}
		}
		*l = append(*l, network)
	}
	return nil
}

// CheckListen requires a TCP address: a port, optionally after a host.
func CheckListen(what, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" || strings.ContainsFunc(address, unicode.IsSpace) {
		return exit.Usagef("%s is %q: want HOST:PORT, such as 127.0.0.1:8080", what, address)
	}
	return nil
}

// checkWebURL refuses URLs that cannot be requested over HTTP. A password is not repeated in the
// error; it would be sent to the server in every request, and be seen in logs.
func checkWebURL(what, text, want string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return exit.Usagef("no %s: give %s", what, want)
	case err == nil && u.User != nil:
		return exit.Usagef("%s %q: a URL must not contain a name and password: omit them", what, u.Redacted())
	case err != nil && strings.Contains(text, "@"):
		return exit.Usagef("%s is not a URL: want %s, without a name and password", what, want)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !mslhttp.ValidPort(u):
		return exit.Usagef("%s %q: want %s", what, text, want)
	}
	return nil
}

// CutUnix returns the path of an address like unix:PATH.
func CutUnix(at string) (path string, ok bool) { return strings.CutPrefix(at, "unix:") }
