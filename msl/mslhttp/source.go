package mslhttp

import (
	"net/netip"
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
