package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
)

const wantListen = "want unix:PATH or a loopback address with a port, such as 127.0.0.1:8090"

// listenLocally listens at the address in that setting, where only programs on this
// machine can connect.
func listenLocally(setting, at string) (net.Listener, error) {
	if at == "" {
		dir := os.Getenv("RUNTIME_DIRECTORY") // of a systemd service
		config.Override(&dir, os.Getenv("XDG_RUNTIME_DIR"))
		if dir == "" {
			return nil, exit.Usagef("no address to listen on: give --listen unix:PATH")
		}
		at = "unix:" + filepath.Join(dir, "msl-hsm-agent.sock")
	}
	if path, ok := config.CutUnix(at); ok {
		if path == "" || path[0] == '@' { // any user may connect to an abstract socket
			return nil, exit.Usagef("%s %q: want the path of a file", setting, at)
		}
		return listenUnix(path)
	}
	address, err := loopback(setting, at)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with %s", err, setting)
	}
	return l, nil
}

// loopback checks that an address is not reachable from other machines. localhost
// always means the loopback address, whatever the resolver says.
func loopback(setting, at string) (string, error) {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return "", exit.Usagef("%s %q: %s", setting, at, wantListen)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return "", exit.Usagef("%s %q: other machines could send with the identity of this one: %s", setting, at, wantListen)
	}
	return net.JoinHostPort(host, port), nil
}

// listenUnix makes a socket that only this user can connect to. A stale socket of an
// earlier agent is removed.
func listenUnix(path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, exit.Usagef("--listen: %s exists and is not a socket", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, exit.Usagef("--listen: another agent listens at %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	before := syscall.Umask(0o177) // so that the socket is never open to others
	l, err := net.Listen("unix", path)
	syscall.Umask(before)
	return l, err
}

// urlOf returns the URL at which a listener can be reached.
func urlOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return serverside.SchemeOf(l) + "://" + l.Addr().String() + "/"
}
