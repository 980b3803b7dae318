//go:build !linux

package porttest

import (
	"net"
	"testing"
)

// hold returns a port that is free now.
func hold(t testing.TB) int {
	t.Helper()
	l := Listen(t, "127.0.0.1:0")
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
