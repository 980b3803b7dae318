package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
)

// DialServer connects to the server that has the state open; it must be running.
func DialServer(c *config.Config, flag string) (*Running, error) {
	if err := FindState(c, flag); err != nil {
		return nil, err
	}
	r, err := LookFor(c)
	if r != nil || err != nil {
		return r, err
	}
	socket, state := c.Server.Admin.Socket, &c.Server.State
	switch {
	case !state.Shared():
		if err = MayRun(state.Path()); err != nil {
			break
		}
		err = fmt.Errorf("no server runs with the state file %s: start it with msl-hsm serve, or name the file of the one that runs with --state", state)
	case socket == "":
		return nil, exit.Usagef("the state is in etcd, and so there is no socket beside it: set server.admin.socket and restart the server; SIGHUP reloads, too")
	default:
		if err = unusable(socket); err != nil {
			break
		}
		err = fmt.Errorf("no server answers at %s: start it with msl-hsm serve", socket)
	}
	return nil, exit.WithCode(err, exit.Failure)
}

// MayRun returns why a server may be running with a state file, although [LookFor] finds none. It
// is nil if none is.
func MayRun(state string) error { return cmp.Or(unusable(socketOf(state)), unreachable(state)) }

// unusable returns why nobody here can connect to a socket, whether or not a server runs.
func unusable(socket string) error {
	conn, err := net.DialTimeout("unix", socket, dialPatience)
	switch {
	case err == nil:
		return conn.Close()
	case exit.IsAny(err, fs.ErrPermission, syscall.EINVAL):
		return fmt.Errorf("the socket of the server cannot be used: %w", err)
	}
	return nil
}

// unreachable returns an error if a process has a state file open, or might have, although nobody
// listens at the socket: it starts or ends, or its socket was removed, or could not be made.
func unreachable(state string) error {
	used, err := boltkv.InUse(state)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("only the user of the server can see whether one runs: %w: run this command as that user", err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("whether a server runs is not known: %w", err)
	case !used:
		return nil
	}
	return fmt.Errorf("a server or another command has %s open, but nobody listens at %s: a server makes a removed socket again within a few seconds, so try again, or see its log", state, filepath.Base(socketOf(state)))
}

// LookFor connects to the server on this machine that has the state open. It returns nil
// if there is none.
func LookFor(c *config.Config) (*Running, error) {
	socket, state := c.Server.Admin.Socket, &c.Server.State
	switch {
	case state.Path() != "":
		return Dial(state.Path())
	case state.Shared() && socket != "":
		return dialAt(socket, state.String())
	}
	return nil, nil
}

// Reload makes the server reload its configuration, and decodes the result into out.
func (r *Running) Reload(out any) error { return r.callLong(http.MethodPost, "/reload", out) }

// Status decodes the server's report on its health into out.
func (r *Running) Status(out any) error { return r.call(http.MethodGet, "/status", nil, out) }

// Metrics writes the server's metrics in Prometheus format.
func (r *Running) Metrics(w io.Writer) error { return r.call(http.MethodGet, "/metrics", nil, w) }

// Page returns a URL of the server's status page. It contains a token.
func (r *Running) Page() (url string, err error) {
	err = r.call(http.MethodPost, "/page", nil, &url)
	return url, err
}
