// Package porttest finds addresses for servers that tests run in another process, or
// restart at the same place.
package porttest

import (
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Address returns an address on IPv4's loopback interface at which a server can listen,
// repeatedly, until the test ends. Its port is given to nothing else in the meantime,
// neither a listener that asks for any port nor a connection: a socket stays bound to it.
// Linux lets others listen there if both set SO_REUSEADDR, see socket(7), as servers do.
// On other systems the port is merely free when Address returns.
func Address(t testing.TB) string {
	t.Helper()
	syscall.ForkLock.RLock() // so that no program inherits the socket
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(s)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		t.Cleanup(func() { syscall.Close(s) })
	} else {
		defer syscall.Close(s)
	}
	port, err := bind(s)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
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

// bind binds a socket to any free port, which it returns.
func bind(socket int) (port int, err error) {
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	bound, err := syscall.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	return bound.(*syscall.SockaddrInet4).Port, nil
}
