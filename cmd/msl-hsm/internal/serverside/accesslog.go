package serverside

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/msl"
)

// An accessLog has a line for each message: in the file, or in the log.
type accessLog struct {
	file  *accessFile // nil if not configured
	log   *slog.Logger
	level slog.Level
}

// openAccessLog opens the configured file. Without one, lines go to the log if that is
// verbose.
func openAccessLog(c *config.Config) (accessLog, error) {
	log := c.Keystore.Log // without sampling, however many messages there are
	if log == nil {
		return accessLog{log: slog.New(slog.DiscardHandler)}, nil
	}
	switch path := c.Server.AccessLog; path {
	case "", config.AccessNone:
		return accessLog{log: log, level: slog.LevelDebug}, nil
	case config.AccessInLog:
		return accessLog{log: log, level: slog.LevelInfo}, nil
	default:
		return accessLogIn(path, log)
	}
}

func accessLogIn(path string, log *slog.Logger) (accessLog, error) {
	f := &accessFile{path: path, log: log}
	if err := f.reopen(); err != nil {
		return accessLog{}, err
	}
	return accessLog{file: f}, nil
}

// AccessLogIn returns a function that writes the lines of an access log to a file, and
// one that closes it.
func AccessLogIn(path string) (write func(context.Context, msl.Served), end func() error, err error) {
	l, err := accessLogIn(path, slog.New(slog.DiscardHandler))
	return l.write, l.Close, err
}

// write writes the line of a message that the server has finished with.
func (l accessLog) write(ctx context.Context, v msl.Served) {
	var room [20]slog.Attr // on the stack
	switch {
	case l.file != nil:
		l.file.add(time.Now(), accessLine(room[:0], &v))
	case l.log.Enabled(ctx, l.level):
		line := slog.NewRecord(time.Now(), l.level, "message", 0) // a Logger would look for the place in the source
		line.AddAttrs(accessLine(room[:0], &v)...)
		_ = l.log.Handler().Handle(ctx, line)
	}
}

// An accessFile is a file that another program may move away at any time. Lines are
// written together, a moment later: writing each separately would cost as much as making
// it.
type accessFile struct {
	path string
	log  *slog.Logger // told once when lines are lost, and once when they no longer are

	mu     sync.Mutex
	file   *os.File
	lines  []byte // not written yet
	torn   bool   // the last write left a part of a line
	lost   outage.Outage
	moved  error // why there is no new file, although this one was moved away
	closed bool
}

const (
	lineDelay = 100 * time.Millisecond
	mostLines = 64 << 10 // bytes

	retryDelay = 5 * time.Second // to make a new file
)

func (f *accessFile) add(at time.Time, fields []slog.Attr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 {
		time.AfterFunc(lineDelay, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.flush()
		})
	}
	if f.lines = appendLine(f.lines, at, fields); len(f.lines) >= mostLines {
		f.flush()
	}
}

// flush writes the buffered lines. A full disk does not keep messages from being answered. The
// mutex must be held.
func (f *accessFile) flush() error {
	if len(f.lines) == 0 {
		return nil
	}
	if f.torn {
		f.lines = slices.Insert(f.lines, 0, '\n')
	}
	n, err := f.file.Write(f.lines)
	if n > 0 {
		f.torn = f.lines[n-1] != '\n'
	}
	f.lines = f.lines[:0]
	f.tell(err)
	return err
}

// tell logs that lines are lost, for example on a full disk, and that they no longer are.
func (f *accessFile) tell(err error) {
	if err != nil {
		f.lost.Failed(err, func() {
			f.log.Error("lines of the access log are lost: free disk space, or correct server.access-log", "file", f.path, "error", err)
		})
		return
	}
	f.lost.Worked(time.Now(), func() { f.log.Info("the access log is written again", "file", f.path) })
}

// reopen starts a new file if the previous one was moved away. If the disk does not permit that
// now, lines go to the previous one until it does: that is no reason to refuse a reload.
func (f *accessFile) reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch err := f.openAgain(); {
	case err == nil:
		return nil
	case exit.IsAny(err, fs.ErrNotExist, syscall.ENOTDIR):
		return exit.Usagef("server.access-log: %w: correct the path, or make its directory", err)
	case f.file != nil && exit.IsAny(err, diskErrors...):
		f.stay(err)
		return nil
	default:
		return exit.Usagef("server.access-log: %w", err)
	}
}

// openAgain opens the file, unless it is open. The mutex must be held.
func (f *accessFile) openAgain() error {
	if f.file != nil && isAt(f.file, f.path) {
		f.moved = nil
		return nil
	}
	file, err := atomicfile.Open(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	old := f.file
	if old == nil {
		f.file = file
		return nil
	}
	_ = f.flush()
	f.file, f.torn, f.moved = file, false, nil
	if err := old.Close(); err != nil {
		f.tell(err)
	}
	return nil
}

// diskErrors are those that may pass without anybody correcting a path.
var diskErrors = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ESTALE, syscall.EMFILE, syscall.ENFILE}

// stay continues with a file that was moved away. The mutex must be held.
func (f *accessFile) stay(err error) {
	if f.moved == nil {
		f.log.Error("the access log cannot be made again: its lines go to the file that was moved away until it can: see that its disk can be written", "file", f.path, "error", err)
		time.AfterFunc(retryDelay, f.retry)
	}
	f.moved = err
}

// retry tries again to make the file, unless that is done.
func (f *accessFile) retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.moved == nil || f.closed {
		return
	}
	if err := f.openAgain(); err != nil {
		f.moved = err
		time.AfterFunc(retryDelay, f.retry)
		return
	}
	f.log.Info("the access log is written again", "file", f.path)
}

// isAt reports whether a path leads to an open file.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	there, errThere := os.Stat(path)
	return err == nil && errThere == nil && os.SameFile(open, there)
}

// reopen starts a new file, if there is a file.
func (l accessLog) reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.reopen()
}

// Close closes the file, if there is one.
func (l accessLog) Close() error {
	if l.file == nil {
		return nil
	}
	l.file.mu.Lock()
	defer l.file.mu.Unlock()
	l.file.closed = true
	defer l.file.lost.Stop()
	return errors.Join(l.file.flush(), l.file.file.Close())
}
