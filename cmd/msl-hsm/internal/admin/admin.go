package admin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

const (
	// patience is for an answer of a running server, longPatience for one that
	// reads or writes all of its state.
	patience     = 10 * time.Second
	longPatience = 10 * time.Minute
	dialPatience = 2 * time.Second
)

// A runningServer is one that has a state file open. It is asked one question
// after the other.
type runningServer struct {
	*rpc.Client
	conn  net.Conn
	state string
}

// DialServer finds the server that has a state file open. Nil is none.
func DialServer(state string) (*runningServer, error) {
	conn, err := net.DialTimeout("unix", SocketOf(state), dialPatience)
	switch {
	case err == nil:
		return &runningServer{rpc.NewClient(conn), conn, state}, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return nil, silent(state, dialPatience) // nobody takes calls
	}
	return nil, nil
}

// Call asks the server, and does not wait for ever.
func (r *runningServer) Call(method string, args, reply any) error {
	return r.CallFor(patience, method, args, reply)
}

// callLong asks for what may take a while, of a server that is alive.
func (r *runningServer) callLong(method string, args, reply any) error {
	if err := r.Call("Keeper.Alive", struct{}{}, new(struct{})); err != nil {
		return err
	}
	return r.CallFor(longPatience, method, args, reply)
}

func (r *runningServer) CallFor(d time.Duration, method string, args, reply any) error {
	r.conn.SetDeadline(time.Now().Add(d))
	defer r.conn.SetDeadline(time.Time{})
	err := r.Client.Call(method, args, reply)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return silent(r.state, d)
	case exit.IsAny(err, io.ErrUnexpectedEOF, rpc.ErrShutdown, syscall.ECONNRESET, syscall.EPIPE):
		return exit.WithCode(fmt.Errorf("the server that had %s open ended before it answered: try again", r.state), exit.Failure)
	case err != nil && strings.HasPrefix(err.Error(), "rpc: can't find "):
		return exit.WithCode(fmt.Errorf("the server that has %s open runs another version: restart it and try again", r.state), exit.Failure)
	}
	return err
}

func silent(state string, d time.Duration) error {
	return exit.WithCode(fmt.Errorf("the server that has %s open did not answer in %v: it is stopped or stuck, and may still do it later; let it go on or end it, and try again", state, d), exit.Failure)
}

// fromServer finds again which of the known errors a text was.
func fromServer(err error, known ...error) error {
	var own exit.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	for _, known := range known {
		if before, after, ok := strings.Cut(err.Error(), known.Error()); ok {
			return fmt.Errorf("%s%w%s", before, known, after)
		}
	}
	return fmt.Errorf("running server: %w", err)
}
