package auditlog_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
)

// onDisk is what a crash leaves: the files of a log, by their names.
type onDisk map[string]string

// put writes the files to a new directory, and returns where the log is.
func (d onDisk) put(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range d {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "audit")
}

// loose counts the records after the last mark that is signed.
func (d onDisk) loose(t *testing.T, names ...string) (loose int) {
	t.Helper()
	marked := 0
	for _, name := range names {
		for text := range strings.Lines(d[name]) {
			var l struct{ Event string }
			if !strings.HasSuffix(text, "\n") || json.Unmarshal([]byte(text), &l) != nil {
				continue
			}
			switch l.Event {
			case "file":
			case "mark":
				marked = 0
			case "checkpoint":
				loose = marked
			default:
				loose, marked = loose+1, marked+1
			}
		}
	}
	return loose
}

// twoFiles returns a log that a server is writing, in two files, and their names.
func twoFiles(t *testing.T, key crypto.Signer) (whole onDisk, aside string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key, Size: 1500})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(auditlog.Record{Event: auditlog.EventStart})
	for len(filesOf(t, path)) < 2 {
		l.Record(auditlog.Record{Event: "message", Detail: strings.Repeat("x", 200)})
		l.Reopen(nil) // with a checkpoint
	}
	l.Record(auditlog.Record{Event: "message"})
	l.Reopen(nil)
	files := filesOf(t, path)
	whole, aside = onDisk{}, filepath.Base(files[0])
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		whole[filepath.Base(file)] = string(text)
	}
	return whole, aside
}

// TestCrashAnywhere ends a server at any byte of what it writes: in a line, in a batch, in a
// signature, between the two steps of a rotation, and in the first line of the next file. What
// is verified then is told once, and after the next start the log verifies, and says what is
// missing.
func TestCrashAnywhere(t *testing.T) {
	key := newKey(t)
	whole, aside := twoFiles(t, key)
	step := 31
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	for n := 0; n <= len(whole[aside]); n += step {
		t.Run(fmt.Sprint("first file, byte ", n), func(t *testing.T) { crashed(t, key, onDisk{"audit": whole[aside][:n]}, "audit") })
	}
	t.Run("renamed", func(t *testing.T) { crashed(t, key, onDisk{aside: whole[aside]}, aside) })
	for n := 0; n <= len(whole["audit"]); n += step {
		t.Run(fmt.Sprint("second file, byte ", n), func(t *testing.T) {
			crashed(t, key, onDisk{aside: whole[aside], "audit": whole["audit"][:n]}, aside, "audit")
		})
	}
	t.Run("zeros", func(t *testing.T) {
		crashed(t, key, onDisk{aside: whole[aside], "audit": strings.Repeat("\x00", 4096)}, aside, "audit")
	})
	// in the middle of a line, then in the middle of putting that file aside
	cut := whole["audit"][:len(whole["audit"])-40]
	t.Run("twice", func(t *testing.T) {
		crashed(t, key, onDisk{aside: whole[aside], "audit.000000000099": cut, "audit": whole["audit"][:0]}, aside, "audit.000000000099", "audit")
	})
}

// crashed verifies what a crash left, before and after the next start.
func crashed(t *testing.T, key crypto.Signer, left onDisk, names ...string) {
	path := left.put(t)
	newest := left[names[len(names)-1]]
	there := slices.DeleteFunc(filesOf(t, path), func(file string) bool { _, err := os.Stat(file); return err != nil })
	before := verify(t, there, keysOf(t, key))
	partial := newest == "" || !strings.HasSuffix(newest, "\n") || strings.Contains(left["audit.000000000099"], "{")
	for _, f := range before.Findings {
		if !strings.Contains(f.Text, "by a crash or by somebody") && !strings.Contains(f.Text, "a crash left it so") && !strings.Contains(f.Text, "nothing in this log is signed") {
			t.Errorf("before the next start: %+v", f)
		}
	}
	if partial != (len(before.Findings) > 0) && len(before.Logs) > 0 && before.Logs[0].Checkpoints > 0 {
		t.Errorf("before the next start: %+v", before)
	}

	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	after := verify(t, filesOf(t, path), keysOf(t, key))
	if len(after.Findings) > 0 || len(after.Logs) != 1 || !after.Logs[0].Stopped || after.Logs[0].First != 1 {
		t.Fatalf("after the next start: %+v", after)
	}
	notes := strings.Join(after.Logs[0].Notes, "\n")
	records := left.loose(t, names...)
	switch {
	case records > 0 && !strings.Contains(notes, fmt.Sprintf("where another process began: %d:", records)):
		t.Errorf("%d records were not signed: %s", records, notes)
	case records == 0 && strings.Contains(notes, "unsigned"):
		t.Errorf("all records were signed: %s", notes)
	case records == 0 && strings.Contains(strings.Join(names, "")+left[names[0]], "message") && !strings.Contains(notes, "did not end properly"):
		t.Errorf("the process did not stop: %s", notes)
	}
}

// TestNotPutAside wants no second log beside one that another process still writes, though it
// is just being put aside.
func TestNotPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(path, path+".000000000001"); err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Open(auditlog.Config{Path: path}); !errors.Is(err, auditlog.ErrInUse) {
		t.Errorf("a second process writes the log: %v", err)
	}
}

// TestLogrotateOrder continues the newest of the files that were moved away, which logrotate
// calls .1.
func TestLogrotateOrder(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	for range 3 {
		write(t, auditlog.Config{Path: path, Signer: key}, 1)
		os.Rename(path+".1", path+".2")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path+".3", nil, 0o600); err != nil { // as rotated while it was empty
		t.Fatal(err)
	}
	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	r := verify(t, []string{path, path + ".1", path + ".2"}, keysOf(t, key))
	if len(r.Findings) > 0 || len(r.Logs) != 1 || r.Logs[0].Records != 9 {
		t.Errorf("%+v", r)
	}
	// one that cannot be read is not passed over
	if err := errors.Join(os.Rename(path, path+".0"), os.WriteFile(path+".7", []byte("damaged\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key}); err == nil || !strings.Contains(err.Error(), "audit.7: it is not an audit log") {
		t.Errorf("%v, %v", l, err)
	}
}

// TestClockBack sets the clock back by years.
func TestClockBack(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "audit")
	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		write(t, auditlog.Config{Path: path, Signer: key}, 1)
	})
	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	r := verify(t, []string{path}, keysOf(t, key))
	if len(r.Findings) > 0 || len(r.Logs[0].Notes) != 1 || !strings.Contains(r.Logs[0].Notes[0], "the clock was set back") {
		t.Errorf("%+v", r)
	}
}

// TestMarksOfNothing tries to sign again and again while the key is away or the disk full.
func TestMarksOfNothing(t *testing.T) {
	key := failingSigner{newKey(t), make(chan struct{})}
	path := filepath.Join(t.TempDir(), "audit")
	l, err := auditlog.Open(auditlog.Config{Path: path, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(auditlog.Record{Event: "one"})
	for range 20 {
		l.Reopen(nil)
	}
	empty := l.Fill()
	l.Record(auditlog.Record{Event: "two"})
	for range 20 {
		l.Reopen(nil)
	}
	empty()
	close(key.works)
	if err := errors.Join(l.Reopen(nil), l.Err(), l.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if marks := bytes.Count(text, []byte(`"event":"mark"`)); err != nil || marks != 2 {
		t.Errorf("%d marks, %v", marks, err)
	}
	if r := verify(t, []string{path}, keysOf(t, key)); len(r.Findings) > 0 || r.Logs[0].Unsigned != 0 {
		t.Errorf("%+v", r)
	}
}
