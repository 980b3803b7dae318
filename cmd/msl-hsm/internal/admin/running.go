package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

const (
	// patience limits the wait for an answer from a running server, longPatience for a
	// call that reads or writes all of its state.
	patience     = 10 * time.Second
	longPatience = 10 * time.Minute
	dialPatience = 2 * time.Second
)

// A Running is a server that has a state file open.
type Running struct {
	web           *http.Client
	socket, state string
}

// Dial connects to the server that has a state file open. It returns nil if there is
// none.
func Dial(state string) (*Running, error) { return dialAt(socketOf(state), state) }

// dialAt is Dial for a socket anywhere.
func dialAt(socket, state string) (*Running, error) {
	conn, err := net.DialTimeout("unix", socket, dialPatience)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout(): // EAGAIN too
		return nil, silent(state, dialPatience) // nothing accepts connections
	case err != nil && nobodyListens(err):
		return nil, nil
	case err != nil:
		return nil, exit.WithCode(fmt.Errorf("cannot tell whether a server has %s open: %w", state, err), exit.Failure)
	}
	conn.Close()
	r := reach(socket, state)
	return r, r.alive()
}

// nobodyListens reports whether an error of connecting to a socket means that no server of
// this user listens there: there is none, or the path cannot lead to one. Other errors, as of
// a process that has no file descriptor left, say nothing about servers.
func nobodyListens(err error) bool {
	return exit.IsAny(err, syscall.ECONNREFUSED, fs.ErrNotExist, fs.ErrPermission, syscall.EINVAL, // too long
		syscall.ENAMETOOLONG, syscall.ENOTDIR, syscall.ELOOP, syscall.EPROTOTYPE)
}

// dialFile is Dial for the state file in the configuration. A state in etcd has no
// socket.
func dialFile(c *config.Config) (*Running, error) {
	if c.Server.State.File == "" {
		return nil, nil
	}
	return Dial(c.Server.State.Path())
}

// reach makes one connection per call, since a person may pause between two.
func reach(socket, state string) *Running {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Running{&http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true}}, socket, state}
}

// alive checks that the server answers. A server that predates HTTP hangs up, and
// continues to listen.
func (r *Running) alive() error {
	err := r.call(http.MethodGet, "/alive", nil, nil)
	if errors.Is(err, errEnded) && r.listens() {
		return r.otherVersion()
	}
	return err
}

func (r *Running) listens() bool {
	conn, err := net.DialTimeout("unix", r.socket, dialPatience)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func socketOf(state string) string { return state + ".sock" }

// Close ends the connection.
func (r *Running) Close() error {
	r.web.CloseIdleConnections()
	return nil
}

// call sends a request to the server, with a time limit. in is a secret as bytes, or is
// sent as JSON; out is an io.Writer, or is read as JSON. Either may be nil.
func (r *Running) call(method, path string, in, out any) error {
	return r.callFor(patience, method, path, in, out)
}

// callLong makes a call that may take a while, after checking that the server is alive.
func (r *Running) callLong(method, path string, out any) error {
	if err := r.alive(); err != nil {
		return err
	}
	return r.callFor(longPatience, method, path, nil, out)
}

func (r *Running) callFor(d time.Duration, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	body, err := encode(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := r.web.Do(request)
	if err != nil {
		return r.lost(err, d)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return r.refused(answer)
	}
	err = decode(answer.Body, out)
	var unwritten writeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unwritten):
		return unwritten.error
	}
	return r.lost(err, d)
}

func encode(in any) ([]byte, error) {
	switch in := in.(type) {
	case nil:
		return nil, nil
	case []byte:
		return in, nil
	}
	if !isText(reflect.ValueOf(in)) {
		return nil, exit.Usagef("names and notes must be UTF-8")
	}
	return json.Marshal(in)
}

// isText reports whether every string in a value is UTF-8. JSON would alter any other.
func isText(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			if !isText(v.Field(i)) {
				return false
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if !isText(v.Index(i)) {
				return false
			}
		}
	case reflect.Pointer:
		return v.IsNil() || isText(v.Elem())
	}
	return true
}

func decode(body io.Reader, out any) (err error) {
	switch out := out.(type) {
	case nil:
	case io.Writer:
		_, err = io.Copy(markedWriter{out}, body)
	default:
		err = json.NewDecoder(body).Decode(out)
	}
	return err
}

// A writeError is about what is made of an answer, not about the server.
type writeError struct{ error }

// A markedWriter makes every error a writeError.
type markedWriter struct{ io.Writer }

func (w markedWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		err = writeError{err}
	}
	return n, err
}

// lost explains why there is no answer.
func (r *Running) lost(err error, d time.Duration) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		return silent(r.state, d)
	case hungUp(err):
		return exit.WithCode(fmt.Errorf("the server that had %s open %w: try again", r.state, errEnded), exit.Failure)
	}
	return fmt.Errorf("running server: %w", err)
}

// hungUp reports whether a connection ended. Go has no type for the error if it ended
// before anything was sent on it.
func hungUp(err error) bool {
	return exit.IsAny(err, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE, fs.ErrNotExist) ||
		strings.Contains(err.Error(), "server closed idle connection")
}

// errEnded means that the connection ended without an answer.
var errEnded = errors.New("ended before it answered")

// errSilent means that there was no answer in time.
var errSilent = errors.New("did not answer")

// Uncertain reports whether a change may have been made although there was an error.
func Uncertain(err error) bool { return exit.IsAny(err, errEnded, errSilent, etcd.ErrUncertain) }

// errVersion is the kind of error for requests that a server does not understand.
var errVersion = errors.New("another version")

// otherVersion means that the server does not understand this version's requests.
func (r *Running) otherVersion() error {
	return exit.WithCode(exit.OfKind(errVersion, "the server that has %s open runs another version: restart it and try again", r.state), exit.Failure)
}

func silent(state string, d time.Duration) error {
	return exit.WithCode(fmt.Errorf("the server that has %s open %w in %v: it is stopped or stuck, and may still do it later; let it continue or stop it, and try again", state, errSilent, d), exit.Failure)
}

// refused returns the error that the server answered with.
func (r *Running) refused(answer *http.Response) error {
	var p problem
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || p.Error == "" {
		return r.otherVersion()
	}
	return p.err()
}
