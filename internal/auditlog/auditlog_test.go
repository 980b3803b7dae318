package auditlog_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keysOf(t testing.TB, signers ...crypto.Signer) map[string]crypto.PublicKey {
	t.Helper()
	all := map[string]crypto.PublicKey{}
	for _, s := range signers {
		id, err := keystore.KeyID(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		all[id] = s.Public()
	}
	return all
}

// write runs a process that writes n records, with a checkpoint after every fourth at least.
func write(t testing.TB, c auditlog.Config, n int) {
	t.Helper()
	l, err := auditlog.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: auditlog.EventStart})
	for i := range n {
		id := int64(i)
		l.Record(auditlog.Record{Event: "message", Entity: "camera", MessageID: &id})
		if i%4 == 3 {
			if err := l.Reopen(nil); err != nil { // with a checkpoint
				t.Fatal(err)
			}
		}
	}
	l.Record(auditlog.Record{Event: auditlog.EventStop})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, files []string, keys map[string]crypto.PublicKey, seen ...auditlog.Position) auditlog.Report {
	t.Helper()
	r, err := auditlog.Verify(files, keys, seen)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhole(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"EC": newKey(t), "RSA": rsaKey} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit")
			write(t, auditlog.Config{Path: path, Signer: key}, 10)
			write(t, auditlog.Config{Path: path, Signer: key}, 3) // the chain goes on
			r := verify(t, []string{path}, keysOf(t, key))
			if len(r.Findings) > 0 || len(r.Logs) != 1 {
				t.Fatalf("%+v", r)
			}
			s := r.Logs[0]
			if all, _, _ := strings.Cut(s.Last, ":"); all != strconv.Itoa(s.Records+s.Own) {
				t.Errorf("%d and %d records, and the last one is %s", s.Records, s.Own, s.Last)
			}
			if s.Records != 17 || s.Unsigned != 0 || !s.Stopped || len(s.Notes) > 0 || s.First != 1 {
				t.Errorf("%+v", s)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

// TestChanges removes, changes, repeats and exchanges each line.
func TestChanges(t *testing.T) {
	key := newKey(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "audit")
	write(t, auditlog.Config{Path: path, Signer: key}, 6)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	whole[len(whole)-1] += "\n"
	other := filepath.Join(dir, "other")
	write(t, auditlog.Config{Path: other, Signer: key}, 6)
	foreign, _ := os.ReadFile(other)
	foreignLines := strings.SplitAfter(string(foreign), "\n")
	for i := range whole {
		for name, change := range map[string]func([]string) []string{
			"removed":  func(l []string) []string { return slices.Delete(l, i, i+1) },
			"repeated": func(l []string) []string { return slices.Insert(l, i, l[i]) },
			"changed":  func(l []string) []string { l[i] = strings.Replace(l[i], `"event":"`, `"event":"x`, 1); return l },
			"time":     func(l []string) []string { l[i] = strings.Replace(l[i], `"time":"2`, `"time":"1`, 1); return l },
			"chain":    func(l []string) []string { l[i] = strings.Replace(l[i], `"chain":"`, `"chain":"A`, 1); return l },
			"garbage":  func(l []string) []string { l[i] = "{}\n"; return l },
			"no end":   func(l []string) []string { l[i] = strings.TrimSuffix(l[i], "\n"); return l },
			"space":    func(l []string) []string { l[i] = " " + l[i]; return l },
			"foreign":  func(l []string) []string { l[i] = foreignLines[i]; return l },
			"moved": func(l []string) []string {
				j := (i + 1) % len(l)
				l[i], l[j] = l[j], l[i]
				return l
			},
		} {
			lines := change(slices.Clone(whole))
			bad := filepath.Join(dir, "bad")
			if err := os.WriteFile(bad, []byte(strings.Join(lines, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			r := verify(t, []string{bad}, keysOf(t, key))
			if i == len(whole)-1 && name == "removed" {
				// The last checkpoint: its records are unsigned now, which is reported.
				if len(r.Logs) == 0 || r.Logs[0].Stopped || len(r.Logs[0].Notes) == 0 {
					t.Errorf("%s line %d: %+v", name, i+1, r)
				}
				continue
			}
			if len(r.Findings) == 0 {
				t.Errorf("%s line %d is not found", name, i+1)
			}
		}
	}
}

// TestRechained changes a record and computes all chain values anew, as somebody without
// the key can.
func TestRechained(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	write(t, auditlog.Config{Path: path, Signer: key}, 6)
	text, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines[2] = bytes.Replace(lines[2], []byte("camera"), []byte("cannot"), 1)
	if err := os.WriteFile(path, auditlog.Rechain(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	r := verify(t, []string{path}, keysOf(t, key))
	if len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Text, "wrong signature") {
		t.Errorf("%+v", r.Findings)
	}
	if len(verify(t, []string{path}, keysOf(t, newKey(t))).Findings) == 0 {
		t.Error("another key verifies it")
	}
}

// filesOf returns the files of the log at a path, oldest first.
func filesOf(t *testing.T, path string) (files []string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return append(files, path)
}

func TestRotation(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit[1]")
	write(t, auditlog.Config{Path: path, Signer: key, Size: 1500}, 40)
	files := filesOf(t, path)
	if len(files) < 3 {
		t.Fatalf("%q", files)
	}
	backwards := slices.Clone(files)
	slices.Reverse(backwards)
	for _, order := range [][]string{files, backwards} {
		if r := verify(t, order, keysOf(t, key)); len(r.Findings) > 0 || len(r.Logs) != 1 || len(r.Logs[0].Notes) > 0 {
			t.Errorf("%+v", r)
		}
	}
	without := slices.Delete(slices.Clone(files), 1, 2)
	if r := verify(t, without, keysOf(t, key)); len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Text, "missing") {
		t.Errorf("a file is missing: %+v", r)
	}
	r := verify(t, files[1:], keysOf(t, key))
	if len(r.Findings) > 0 || len(r.Logs[0].Notes) != 1 || !strings.Contains(r.Logs[0].Notes[0], "begins at record") {
		t.Errorf("without the first file: %+v", r)
	}
}

// TestMovedAway moves the file away, as logrotate does, while the log is written and while it is not.
func TestMovedAway(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "one"})
	if err := errors.Join(os.Rename(path, path+".1"), l.Reopen(nil)); err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "two"})
	if err := errors.Join(l.Close(), os.Rename(path, path+".2")); err != nil {
		t.Fatal(err)
	}
	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	r := verify(t, []string{path + ".1", path + ".2", path}, keysOf(t, key))
	if len(r.Findings) > 0 || len(r.Logs) != 1 || r.Logs[0].Records != 5 {
		t.Errorf("%+v", r)
	}
}

// TestTail cuts the log off.
func TestTail(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	write(t, auditlog.Config{Path: path, Signer: key}, 8)
	before := verify(t, []string{path}, keysOf(t, key))
	seen, err := auditlog.ParsePosition(before.Logs[0].Last)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(text, []byte("\n"))
	if err := os.WriteFile(path, bytes.Join(lines[:len(lines)-5], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	r := verify(t, []string{path}, keysOf(t, key))
	if len(r.Findings) > 0 || r.Logs[0].Stopped || len(r.Logs[0].Notes) == 0 {
		t.Errorf("cut off: %+v", r)
	}
	if r := verify(t, []string{path}, keysOf(t, key), seen); len(r.Findings) != 1 {
		t.Errorf("cut off, and the end was seen before: %+v", r)
	}
}

// TestCrash continues after a part of a record.
func TestCrash(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	write(t, auditlog.Config{Path: path, Signer: key}, 3)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, `{"n":9,"ti`)
	f.Close()
	if len(verify(t, []string{path}, keysOf(t, key)).Findings) == 0 {
		t.Error("a part of a record is not told")
	}
	write(t, auditlog.Config{Path: path, Signer: key}, 3)
	files := filesOf(t, path)
	r := verify(t, files, keysOf(t, key))
	if len(files) != 2 || len(r.Findings) > 0 || len(r.Logs[0].Notes) != 1 {
		t.Errorf("%q: %+v", files, r)
	}
}

// TestUnsigned has the next process sign what one without a key wrote.
func TestUnsigned(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	write(t, auditlog.Config{Path: path}, 3)
	if r := verify(t, []string{path}, keysOf(t, key)); len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "nothing in this log is signed") {
		t.Errorf("%+v", r)
	}
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, []string{path}, keysOf(t, key)); len(r.Findings) > 0 || r.Logs[0].Unsigned != 0 {
		t.Errorf("%+v", r)
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := auditlog.Open(auditlog.Config{Path: path}); !errors.Is(err, auditlog.ErrInUse) {
		t.Error(err)
	}
}

func TestNotLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	for _, text := range []string{"hello\n", "hello", strings.Repeat("x", 200_000), "{}\n{}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := auditlog.Open(auditlog.Config{Path: path}); err == nil {
			l.Close()
			t.Errorf("%.10q is taken for a log", text)
		}
		if left, _ := os.ReadFile(path); string(left) != text {
			t.Errorf("%.10q is changed", text)
		}
	}
}

// TestInterval makes a checkpoint after the interval, without a call.
func TestInterval(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(auditlog.Record{Event: "one"})
	for deadline := time.Now().Add(10 * time.Second); l.Unsigned() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no checkpoint")
		}
	}
}

// TestEncoding compares lines with those of encoding/json.
func TestEncoding(t *testing.T) {
	id := int64(-1)
	for _, text := range []string{"", "plain", `quote " and \ back`, "<&>", "\x00\n\u2028 ümlaut", "not UTF-8 \xff"} {
		for _, r := range []auditlog.Record{{}, {
			Event: text, Action: text, Subject: text, By: text, Source: text, Entity: text, Authenticated: true, User: text, Scheme: text, KeyExchange: text,
			MessageID: &id, KeyVersion: 1, Issued: 2, Key: text, Result: text, Code: -1, Error: text, Detail: text, Count: 9,
		}} {
			if r.Event = text; text == "" {
				r.Event = "x" // is never empty
			}
			own, library, err := auditlog.EncodeBothWays(r, 5, []byte(text))
			if err != nil || !bytes.Equal(own, library) {
				t.Errorf("%q: %s, want %s, %v", text, own, library, err)
			}
		}
	}
}

// TestOnTerminal writes names that a terminal would obey, or show backwards.
func TestOnTerminal(t *testing.T) {
	const name = "evil\u202egnp.exe\u2066\u009b2J\u007f\u200b\U000e0041"
	line, _, err := auditlog.EncodeBothWays(auditlog.Record{Event: "message", Entity: name}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var read auditlog.Record
	if err := json.Unmarshal(line, &read); err != nil || read.Entity != name || safetext.String(string(line)) != string(line) {
		t.Errorf("%q is read as %q, %v", line, read.Entity, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := auditlog.Open(auditlog.Config{Path: filepath.Join(b.TempDir(), "audit"), Signer: newKey(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	id := int64(4711)
	b.ReportAllocs()
	for b.Loop() {
		l.Record(auditlog.Record{Event: "message", Source: "203.0.113.9", Entity: "camera-7", Authenticated: true, User: "ada@example.com", MessageID: &id, KeyVersion: 1, Result: "answered"})
	}
}
