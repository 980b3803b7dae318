package auditlog_test

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	if len(r.Findings) > 0 || r.Logs[0].Unsigned != 0 || len(r.Logs[0].Notes) != 2 || !strings.Contains(r.Logs[0].Notes[0], "were lost") {
		t.Errorf("%+v", r)
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "written again") != 1 {
		t.Error(text)
	}
}
