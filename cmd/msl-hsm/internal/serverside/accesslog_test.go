package serverside

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// TestAccessLine has a stranger put whatever it likes into a line: it is one line of JSON, and
// not a long one.
func TestAccessLine(t *testing.T) {
	for name, text := range map[string]string{
		"long": strings.Repeat("a", 1<<20), "long, of two bytes each": "a" + strings.Repeat("ä", 1<<19),
		"lines": "a\n{\"msg\":\"message\",\"entity\":\"admin\"}\r\n", "not UTF-8": "\xff\xfe", "a terminal": "\x1b[2J",
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := accessLog{log: slog.New(slog.NewJSONHandler(&out, nil)), level: slog.LevelInfo}
			l.write(t.Context(), msl.Served{Identity: text, User: text, Scheme: text, KeyExchange: text, Err: errors.New(text)})
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 || out.Len() > 6*longestText {
				t.Errorf("%d lines of %d bytes", n, out.Len())
			}
			if bytes.ContainsRune(out.Bytes(), 0x1b) {
				t.Error("a terminal would obey")
			}
			var line struct{ Entity string }
			if err := json.Unmarshal(out.Bytes(), &line); err != nil || len(text) < longestText && name != "not UTF-8" && line.Entity != text {
				t.Errorf("%q: %v", line.Entity, err)
			}
		})
	}
}

// TestAppendLine wants lines as slog writes them.
func TestAppendLine(t *testing.T) {
	at := time.Date(2026, 11, 28, 9, 8, 7, 123456000, time.UTC)
	for _, v := range []msl.Served{
		{},
		{Source: "::1", Identity: "camera", Authenticated: true, User: "ada", Scheme: "PSK", KeyExchange: "X", MessageID: 1 << 53, Read: 1, Written: 2, Took: 3 * time.Millisecond},
		{Identity: "a\"b\\c/<&>\n\t\x1b\x00é\u202e\u2028\u0085😀\U000e0001\x7f", Response: msl.Fail, Code: 4007, Fault: msl.FaultPeer, Err: errors.New("no \"such\" entity")},
		{Message: &msl.Message{Note: &mslhttp.UpstreamCall{Target: "http://a/", Status: 200, Took: time.Second}}},
	} {
		fields := accessLine(nil, &v)
		var want bytes.Buffer
		record := slog.NewRecord(at, slog.LevelInfo, "message", 0)
		record.AddAttrs(fields...)
		if err := slog.NewJSONHandler(safetext.Writer{W: &want}, nil).Handle(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		if got := appendLine(nil, at, fields); string(got) != want.String() {
			t.Errorf("%s\n%s", got, want.Bytes())
		}
	}
}

// TestAccessFileOnTerminal has what a terminal obeys, or shows backwards, escaped in the file.
// It is the same JSON.
func TestAccessFileOnTerminal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.jsonl")
	l, err := accessLogIn(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const identity = "küche\u202e\u009b2J\u007f\u2066\u200b"
	l.write(t.Context(), msl.Served{Identity: identity, Err: errors.New(identity)})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if shown := strings.TrimSuffix(string(text), "\n"); safetext.String(shown) != shown {
		t.Errorf("a terminal would obey %q", shown)
	}
	var line struct{ Entity, Error string }
	if err := json.Unmarshal(text, &line); err != nil || line.Entity != identity || line.Error != identity {
		t.Errorf("%q: %v", line, err)
	}
}

// TestAccessFile moves the file away while lines are written: each is in one of the files, and
// whole.
func TestAccessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.jsonl")
	l, err := accessLogIn(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const writers, lines = 4, 500
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range lines {
				l.write(t.Context(), msl.Served{Identity: strings.Repeat("camera", 20)})
			}
		})
	}
	moved := errors.Join(os.Rename(path, path+".1"), l.reopen())
	all.Wait()
	if err := errors.Join(moved, l.Close()); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range []string{path, path + ".1"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if found++; !json.Valid([]byte(line)) {
				t.Errorf("%s has %q", name, line)
			}
		}
	}
	if found != writers*lines {
		t.Errorf("%d lines of %d", found, writers*lines)
	}
}

// TestAccessLost fills the disk, in the middle of a line, and makes room: that is reported once
// each, and the lines that follow are whole.
func TestAccessLost(t *testing.T) {
	var told strings.Builder
	path := filepath.Join(t.TempDir(), "access.jsonl")
	l, err := accessLogIn(path, slog.New(slog.NewTextHandler(&told, nil)))
	if err != nil {
		t.Fatal(err)
	}
	f := l.file
	line := func() {
		l.write(t.Context(), msl.Served{Identity: "camera"})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.flush()
	}
	line()
	good, full := f.file, fullDevice(t)
	checkIs(t, l, OK, "its lines are written")
	f.file = full
	line()
	line()
	checkIs(t, l, Warning, "lines were lost 0s ago: write /dev/full: no space left on device: free disk space, or correct server.access-log")
	f.file = good
	good.WriteString(`{"half`)
	f.torn = true
	line()
	line()
	checkIs(t, l, OK, "its lines are written")
	before := told.Len()
	for range 50 { // a disk that is nearly full
		f.file = full
		line()
		f.file = good
		line()
	}
	if again := told.String()[before:]; strings.Count(again, "\n") != 1 {
		t.Errorf("of every second line: %s", again)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if text := told.String()[:before]; strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "no space left") != 1 || strings.Count(text, "level=INFO") != 1 || !strings.Contains(text, path) {
		t.Errorf("told %q", text)
	}
	text, err := os.ReadFile(path)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if err != nil || len(lines) != 54 || lines[1] != `{"half` || !json.Valid([]byte(lines[2])) || !json.Valid([]byte(lines[3])) {
		t.Errorf("%q, %v", lines, err)
	}
}

// TestAccessReopen checks that a disk on which nothing can be made holds up no reload: a file that
// is in place stays open, and one that was moved away gets the lines until another can be made.
func TestAccessReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told strings.Builder
		path := filepath.Join(t.TempDir(), "access.jsonl")
		l, err := accessLogIn(path, slog.New(slog.NewTextHandler(&told, nil)))
		if err != nil {
			t.Fatal(err)
		}
		open := l.file.file
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if err := l.reopen(); err != nil || l.file.file != open {
			t.Fatalf("%v, and another file: %v", err, l.file.file != open)
		}
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		noFiles := lowered(t)
		for range 2 {
			if err := l.reopen(); err != nil {
				t.Error(err)
			}
		}
		l.write(t.Context(), msl.Served{Identity: "camera"})
		time.Sleep(2 * retryDelay)
		checkIs(t, l, Warning, "its lines go to the file that was moved away, since no other can be made: open "+path+": too many open files: see that its disk can be written")
		noFiles()
		time.Sleep(2 * retryDelay)
		checkIs(t, l, OK, "its lines are written")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		before, errBefore := os.ReadFile(path + ".1")
		after, errAfter := os.ReadFile(path)
		if err := errors.Join(errBefore, errAfter); err != nil || !strings.Contains(string(before), "camera") || len(after) != 0 {
			t.Errorf("%q, %q, %v", before, after, err)
		}
		if text := told.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "level=INFO") != 1 {
			t.Errorf("told %q", text)
		}
	})
}

// TestAccessLogNowhere has the directory of the access log vanish while its disk is full: it is
// said that lines go to the file that was moved away, until there is another.
func TestAccessLogNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "log")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "access.jsonl")
		l, err := accessLogIn(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir, dir+".1"); err != nil {
			t.Fatal(err)
		}
		noFiles := lowered(t)
		if err := l.reopen(); err != nil {
			t.Fatal(err)
		}
		noFiles()
		time.Sleep(2 * retryDelay)
		checkIs(t, l, Warning, "its lines go to the file that was moved away, since no other can be made: open "+path+": no such file or directory: see that its disk can be written")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryDelay)
		checkIs(t, l, OK, "its lines are written")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// lowered leaves this process no file descriptor until the returned function is called.
func lowered(t *testing.T) (end func()) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	end = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return end
}

func checkIs(t *testing.T, l accessLog, v Verdict, detail string) {
	t.Helper()
	got := checkAccessLog(l)
	for i := range got {
		got[i].Detail = regexp.MustCompile(`\d+s ago`).ReplaceAllString(got[i].Detail, "0s ago") // on a busy machine
	}
	if !slices.Equal(got, []Check{{"access log", v, detail}}) {
		t.Errorf("%v, want %s: %s", got, v, detail)
	}
}

// fullDevice opens a disk that is full.
func fullDevice(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestAccessDelay wants a line in the file without anything else to happen.
func TestAccessDelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.jsonl")
	write, end, err := AccessLogIn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	write(t.Context(), msl.Served{Identity: "camera"})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "camera") {
			return
		}
	}
	t.Error("the line does not come")
}
