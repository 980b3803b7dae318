package main

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

// dialServer finds the server that has a state file open. Nil is none.
func dialServer(state string) (*runningServer, error) {
	conn, err := net.DialTimeout("unix", socketOf(state), dialPatience)
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
	return r.callFor(patience, method, args, reply)
}

// callLong asks for what may take a while, of a server that is alive.
func (r *runningServer) callLong(method string, args, reply any) error {
	if err := r.Call("Keeper.Alive", struct{}{}, new(struct{})); err != nil {
		return err
	}
	return r.callFor(longPatience, method, args, reply)
}

func (r *runningServer) callFor(d time.Duration, method string, args, reply any) error {
	r.conn.SetDeadline(time.Now().Add(d))
	defer r.conn.SetDeadline(time.Time{})
	err := r.Client.Call(method, args, reply)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return silent(r.state, d)
	case isAny(err, io.ErrUnexpectedEOF, rpc.ErrShutdown, syscall.ECONNRESET, syscall.EPIPE):
		return withCode(fmt.Errorf("the server that had %s open ended before it answered: try again", r.state), exitFailure)
	case err != nil && strings.HasPrefix(err.Error(), "rpc: can't find "):
		return withCode(fmt.Errorf("the server that has %s open runs another version: restart it and try again", r.state), exitFailure)
	}
	return err
}

func silent(state string, d time.Duration) error {
	return withCode(fmt.Errorf("the server that has %s open did not answer in %v: it is stopped or stuck, and may still do it later; let it go on or end it, and try again", state, d), exitFailure)
}

// fromServer finds again which of the known errors a text was.
func fromServer(err error, known ...error) error {
	var own coded
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
