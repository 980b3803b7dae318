// Package porttest finds addresses for servers that tests run in another process, or
// restart at the same place.
package porttest

import (
	"net"
	"strconv"
	"testing"
)

// Address returns an address on IPv4's loopback interface at which a server can listen,
// repeatedly, until the test ends. Its port is given to nothing else in the meantime,
// neither a listener that asks for any port nor a connection: a socket stays bound to it.
// Linux lets others listen there if both set SO_REUSEADDR, see socket(7), as servers do.
// On other systems the port is merely free when Address returns.
func Address(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(hold(t)))
}

// Listen is [net.Listen] at an address.
func Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
