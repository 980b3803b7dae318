package serverside

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// An accessLog has a line for each message.
type accessLog struct {
	log   *slog.Logger
	level slog.Level
	file  *accessFile // nil if not configured
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
	lines := slog.NewJSONHandler(safetext.Writer{W: f}, nil) // people read them on terminals
	return accessLog{log: slog.New(lines), level: slog.LevelInfo, file: f}, nil
}

// AccessLogIn returns a function that writes the lines of an access log to a file, and
// one that closes it.
func AccessLogIn(path string) (write func(context.Context, msl.Served), end func() error, err error) {
	l, err := accessLogIn(path, slog.New(slog.DiscardHandler))
	return l.write, l.Close, err
}

// write writes the line of a message that the server has finished with.
func (l accessLog) write(ctx context.Context, v msl.Served) {
	if !l.log.Enabled(ctx, l.level) {
		return
	}
	var room [20]slog.Attr                                    // on the stack
	line := slog.NewRecord(time.Now(), l.level, "message", 0) // a Logger would look for the place in the source
	line.AddAttrs(accessLine(room[:0], &v)...)
	_ = l.log.Handler().Handle(ctx, line) // which logs that lines are lost
}

// accessLine appends the fields of a message's line.
func accessLine(line []slog.Attr, v *msl.Served) []slog.Attr {
	line = append(line, slog.String("source", v.Source), slog.String("entity", shortened(v.Identity)), slog.Bool("authenticated", v.Authenticated))
	line = appendText(line, "user", v.User)
	line = appendText(line, "scheme", v.Scheme)
	line = appendText(line, "key_exchange", v.KeyExchange)
	line = append(line, slog.Int64("message_id", v.MessageID), slog.Int64("read", v.Read), slog.Int64("written", v.Written), slog.Duration("took", v.Took))
	if call := upstreamOf(v.Message); call != nil {
		line = append(line, slog.String("upstream", call.Target), slog.Int("upstream_status", call.Status), slog.Duration("upstream_took", call.Took))
	}
	if v.Response != 0 {
		line = append(line, slog.String("response", v.Response.String()), slog.Int("code", int(v.Code)))
	}
	if v.Err != nil {
		line = append(line, slog.String("fault", v.Fault.String()), slog.String("error", shortened(v.Err.Error())))
	}
	return line
}

func appendText(line []slog.Attr, name, text string) []slog.Attr {
	if text == "" {
		return line
	}
	return append(line, slog.String(name, shortened(text)))
}

// longestText is how many bytes of a text a line has: a stranger may claim an identity as
// long as a header, and must not fill the disk with it.
const longestText = 1024

func shortened(text string) string {
	if len(text) <= longestText {
		return text
	}
	return strings.ToValidUTF8(text[:longestText], "") + "…"
}

// noteUpstream keeps the last request to the service for the line of its message.
func noteUpstream(m *msl.Message, c mslhttp.UpstreamCall) { m.Note = &c }

func upstreamOf(m *msl.Message) *mslhttp.UpstreamCall {
	if m == nil {
		return nil
	}
	call, _ := m.Note.(*mslhttp.UpstreamCall)
	return call
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
	losing bool   // the last write failed
	torn   bool   // and left a part of a line
}

const (
	lineDelay = 100 * time.Millisecond
	mostLines = 64 << 10 // bytes
)

// Write appends a line.
func (f *accessFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 {
		time.AfterFunc(lineDelay, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			_ = f.flush() // a full disk must not keep messages from being answered
		})
	}
	f.lines = append(f.lines, p...)
	if len(f.lines) < mostLines {
		return len(p), nil
	}
	return len(p), f.flush()
}

// flush writes the buffered lines. The mutex must be held.
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
	switch failed := err != nil; {
	case failed == f.losing:
		return
	case failed:
		f.log.Error("lines of the access log are lost: free disk space, or correct server.access-log", "file", f.path, "error", err)
	default:
		f.log.Info("the access log is written again", "file", f.path)
	}
	f.losing = err != nil
}

// reopen starts a new file if the previous one was moved away.
func (f *accessFile) reopen() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return exit.Usagef("server.access-log: %w: correct the path, or make its directory", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.file
	if old == nil {
		f.file = file
		return nil
	}
	_ = f.flush()
	f.file, f.torn = file, false
	return old.Close()
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
	return errors.Join(l.file.flush(), l.file.file.Close())
}
