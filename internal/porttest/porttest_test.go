package porttest

import (
	"net"
	"runtime"
	"testing"
)

// TestAddress has many sockets ask for any port: an address that is held is never theirs, and
// can be listened at before and after, twice.
func TestAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a port is not held here")
	}
	held := map[string]bool{}
	for range 50 {
		held[Address(t)] = true
	}
	for range 2 {
		for address := range held {
			Listen(t, address).Close()
		}
		for range 5000 {
			l := Listen(t, "127.0.0.1:0")
			if l.Close(); held[l.Addr().String()] {
				t.Fatal("it was given to another")
			}
		}
	}
}

// TestAddressDialed has many connections ask for any port.
func TestAddressDialed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a port is not held here")
	}
	held := map[string]bool{}
	for range 50 {
		held[Address(t)] = true
	}
	l := Listen(t, Address(t))
	defer l.Close()
	for range 5000 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if conn.Close(); held[conn.LocalAddr().String()] {
			t.Fatal("it was given to another")
		}
		if conn, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}
