package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/localsocket"
)

const wantListen = "want unix:PATH or a loopback address with a port, such as 127.0.0.1:8090"

// listenLocally listens at the address in that setting, where only programs on this
// machine can connect.
func listenLocally(setting, at string, log *slog.Logger) (net.Listener, error) {
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
		return listenUnix(setting, path, log)
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

// listenUnix listens where only this user can connect.
func listenUnix(setting, path string, log *slog.Logger) (net.Listener, error) {
	l, err := localsocket.Listen(path, log)
	if errors.Is(err, localsocket.ErrTaken) {
		return nil, exit.Usagef("%s: %w", setting, err)
	}
	if exit.IsAny(err, fs.ErrNotExist, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%w; make the directory, or name another path in %s", err, setting)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// urlOf returns the URL at which a listener can be reached.
func urlOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return serverside.SchemeOf(l) + "://" + l.Addr().String() + "/"
}
