// Package localsocket listens at Unix sockets to which only the user of this process can
// connect, for as long as the process runs.
package localsocket

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// ErrTaken: there is something at the path that belongs to others. The error says what
// to do.
var ErrTaken = errors.New("the path is taken")

const (
	lookEvery = 5 * time.Second // for a socket that was removed
	patience  = 2 * time.Second // with whoever listens at a path
)

// A Listener listens at a path. If the socket there is removed, as by a program that
// cleans up, it is made again within a few seconds. Close removes it, but no other that
// replaced it.
type Listener struct {
	path string
	log  *slog.Logger
	stop chan struct{}

	mu    sync.Mutex
	now   *net.UnixListener
	made  fs.FileInfo
	told  string // why the socket could not be made again
	ended bool
}

// Listen makes a socket with mode 0600, which it has from the start. It replaces one at
// which nobody listens anymore, and nothing else ([ErrTaken]). Later
// events of the socket are logged.
func Listen(path string, log *slog.Logger) (*Listener, error) {
	l := &Listener{path: path, log: log, stop: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, err
	}
	go l.keep()
	return l, nil
}

func (l *Listener) open() error {
	defer alone(filepath.Dir(l.path))()
	if err := removeStale(l.path); err != nil {
		return err
	}
	listen := listenApart
	if runtime.GOOS == "linux" {
		listen = listenPrivately
	}
	made, err := listen(l.path)
	if errors.Is(err, syscall.EADDRINUSE) {
		return owned(l.path, nil)
	}
	if err != nil {
		return err
	}
	info, err := os.Lstat(l.path)
	if err != nil {
		return errors.Join(err, made.Close())
	}
	l.now, l.made = made, info
	return nil
}

// listenPrivately gives the mode to the socket before the file is made, which gets it from the
// socket on Linux (unix_bind in net/unix/af_unix.c). Connecting requires write permission.
func listenPrivately(path string) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }), err)
	}}
	made, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l := made.(*net.UnixListener)
	l.SetUnlinkOnClose(false) // it would remove whatever is at the path
	return l, nil
}

// listenApart is for other systems: it makes the socket in a directory that only this user can
// enter, and moves it to its path once it has its mode. The umask would do the same, but it is
// that of the whole process: files and directories made elsewhere meanwhile would get it, too.
func listenApart(path string) (*net.UnixListener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	apart := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: apart, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(apart, 0o600); err == nil {
		err = os.Rename(apart, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return takenError(path + " exists and is not a socket: name another path, or remove it")
	}
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		conn.Close()
	}
	if err := owned(path, err); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// owned returns whose socket is at a path, by the error of connecting to it, and nil if nobody
// listens there anymore.
func owned(path string, err error) error {
	var late net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil, errors.As(err, &late) && late.Timeout(): // EAGAIN too: the queue is full
		return takenError("another process listens at " + path + ": name another path")
	case errors.Is(err, fs.ErrPermission):
		return takenError(path + " is a socket of another user: name another path, or remove it")
	case errors.Is(err, syscall.EPROTOTYPE):
		return takenError(path + " is a socket of another kind: name another path, or remove it")
	}
	return err
}

// alone gives this process its turn to replace sockets in a directory: otherwise, of two that
// start at once, one would remove what the other has just made. Everyone who may read the
// directory can keep it locked, so if the turn does not come, the socket is replaced without it.
func alone(dir string) (done func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	lock := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	for end := time.Now().Add(patience); errors.Is(lock(), syscall.EWOULDBLOCK) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return func() { f.Close() }
}

// keep looks after the socket until the listener is closed.
func (l *Listener) keep() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.look()
		}
	}
}

// look makes the socket again if it was removed.
func (l *Listener) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.there() {
		return
	}
	former := l.now
	err := l.open()
	if err == nil {
		former.Close() // nobody can connect to it
		l.told = ""
		l.log.Warn("the socket was removed, and was made again", "path", l.path)
	} else if err.Error() != l.told {
		l.told = err.Error()
		l.log.Error("the socket was removed, and cannot be made again yet: programs cannot connect", "path", l.path, "error", l.told)
	}
}

// there reports whether the path leads to the socket.
func (l *Listener) there() bool {
	info, err := os.Lstat(l.path)
	return err == nil && os.SameFile(info, l.made)
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		now := l.current()
		conn, err := now.Accept()
		if err == nil || now == l.current() {
			return conn, err
		}
	}
}

func (l *Listener) current() *net.UnixListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Addr returns the path.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends Accept and removes the socket. It can be called again.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return net.ErrClosed
	}
	l.ended = true
	close(l.stop)
	if l.there() {
		os.Remove(l.path)
	}
	return l.now.Close()
}

// A takenError says what is at a path.
type takenError string

func (e takenError) Error() string { return string(e) }
func (e takenError) Unwrap() error { return ErrTaken }
