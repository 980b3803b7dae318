package auditlog_test

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
)

// A failingSigner fails until it may work.
type failingSigner struct {
	crypto.Signer
	works chan struct{}
}

func (f failingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	select {
	case <-f.works:
		return f.Signer.Sign(r, digest, o)
	default:
		return nil, errors.New("CKR_DEVICE_REMOVED")
	}
}

func TestKeyAway(t *testing.T) {
	key := failingSigner{newKey(t), make(chan struct{})}
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "one"})
	if err := l.Reopen(nil); err != nil || l.Err() == nil {
		t.Fatalf("%v, and then %v", err, l.Err())
	}
	l.Record(auditlog.Record{Event: "two"})
	close(key.works)
	if err := errors.Join(l.Reopen(nil), l.Err(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, []string{path}, keysOf(t, key)); len(r.Findings) > 0 || r.Logs[0].Unsigned != 0 {
		t.Errorf("%+v", r)
	}
}

// TestRemoved goes on in another file, and what was in the removed one is found to be missing.
func TestRemoved(t *testing.T) {
	key, dir := newKey(t), t.TempDir()
	path := filepath.Join(dir, "log", "audit")
	var log bytes.Buffer
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "kept"})
	if err := errors.Join(l.Reopen(nil), os.Rename(path, filepath.Join(dir, "kept")), l.Reopen(nil)); err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "lost"})
	if err := errors.Join(l.Reopen(nil), os.RemoveAll(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "lost"})
	if _ = l.Reopen(nil); l.Err() == nil {
		t.Error("nothing is wrong without the directory")
	}
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), l.Reopen(nil), l.Err()); err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "kept, too"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "kept, too") {
		t.Errorf("%s, %v", text, err)
	}
	r := verify(t, []string{filepath.Join(dir, "kept"), path}, keysOf(t, key))
	if len(r.Findings) == 0 || strings.Count(log.String(), "was removed while it was open") != 1 {
		t.Errorf("%+v\n%s", r, &log)
	}
}

// TestClosedMeanwhile closes a log that has worked again for a moment: nothing is told later.
func TestClosedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l, err := auditlog.Open(auditlog.Config{Path: filepath.Join(t.TempDir(), "audit"), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			empty := l.Fill()
			l.Record(auditlog.Record{Event: "late"})
			if err := l.Reopen(nil); l.Err() == nil {
				t.Fatalf("nothing is wrong with a full disk: %v", err)
			}
			empty()
			if err := errors.Join(l.Reopen(nil), l.Err()); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := strings.Count(log.String(), "can be written again"); got != 1 {
			t.Errorf("back %d times:\n%s", got, &log)
		}
	})
}

// TestRemovedMeanwhile removes the file of a log that cannot be written: that is told, too.
func TestRemovedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	var log bytes.Buffer
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: newKey(t), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	empty := l.Fill()
	l.Record(auditlog.Record{Event: "lost"})
	if err := l.Reopen(nil); !errors.Is(l.Err(), syscall.ENOSPC) {
		t.Fatalf("%v, and then %v", err, l.Err())
	}
	empty()
	if err := errors.Join(os.Remove(path), l.Reopen(nil), l.Err(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if strings.Count(log.String(), "was removed while it was open") != 1 {
		t.Errorf("%s", &log)
	}
}

// TestFullDisk writes what fits into memory when there is room again, and counts the rest.
func TestFullDisk(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	var log bytes.Buffer
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	empty := l.Fill()
	for range 10_000 {
		l.Record(auditlog.Record{Event: "message", Detail: strings.Repeat("x", 1000)})
	}
	if err := l.Reopen(nil); !errors.Is(l.Err(), syscall.ENOSPC) {
		t.Fatalf("%v, and then %v", err, l.Err())
	}
	empty()
	if err := errors.Join(l.Reopen(nil), l.Err(), l.Close()); err != nil {
		t.Fatal(err)
	}
	r := verify(t, []string{path}, keysOf(t, key))
	if len(r.Findings) > 0 || r.Logs[0].Unsigned != 0 || len(r.Logs[0].Notes) != 2 || !strings.Contains(r.Logs[0].Notes[0], "records lost before") {
		t.Errorf("%+v", r)
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "written again") != 1 {
		t.Error(text)
	}
}
