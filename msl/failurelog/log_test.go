package failurelog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testRecords(now time.Time, entity string) []Record {
	return newRecords(now, entity, &Report{Failures: []Failure{{Incident: Incident{Kind: Device}, Count: 1, First: testTime, Last: testTime}}})
}

func openTestLog(t *testing.T, path string, r Rotation) *Log {
	t.Helper()
	l, err := OpenLog(path, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustWrite(t *testing.T, l *Log, records []Record) {
	t.Helper()
	if err := l.write("", records); err != nil {
		t.Fatal(err)
	}
}

// TestControlCharacters writes names that would break lines or steer terminals.
func TestControlCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{})
	names := []string{"a\nb", "\x00", "\x1b[2J", "\u0085\u009b31m", "\u2028\u2029", "\u202eevil", "é\U0001f512", `"},{"`, "\x7f", "<b>"}
	for _, name := range names {
		mustWrite(t, l, testRecords(testTime, name))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines != len(names) {
		t.Errorf("%d lines of %d records", lines, len(names))
	}
	for _, c := range text {
		if c != '\n' && (c > unicode.MaxASCII || !unicode.IsPrint(rune(c))) {
			t.Fatalf("byte %#x is in the log", c)
		}
	}
	for n, r := range records(t, path) {
		if r.Entity != names[n] {
			t.Errorf("%q became %q", names[n], r.Entity)
		}
	}
}

func TestLongestRecord(t *testing.T) {
	h, path := newHandler(t)
	for _, c := range []string{"<", "é", "\U0001f512", "\x01"} {
		name := strings.Repeat(c, maxIdentity/len(c))
		if code := answerCode(t, post(h, message(t, from(name), nil, good(t))).Body.Bytes()); code != -1 {
			t.Fatalf("%q: %v", c, code)
		}
	}
	if got := records(t, path); len(got) != 4 {
		t.Errorf("%d records", len(got))
	}
}

func TestRotationBySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{Size: 1000, Keep: 3})
	for n := range 60 {
		mustWrite(t, l, testRecords(testTime, fmt.Sprint("camera-", n)))
		if info, err := os.Stat(path); err != nil || info.Size() > 1000 {
			t.Fatalf("size %v, error %v", info, err)
		}
	}
	old, err := rotated(path)
	if err != nil || len(old) != 3 {
		t.Fatalf("%d files were kept, error %v", len(old), err)
	}
	all := records(t, path)
	for n, r := range all {
		if want := fmt.Sprint("camera-", 60-len(all)+n); r.Entity != want {
			t.Fatalf("got %s, want %s", r.Entity, want)
		}
	}
	if len(all) < 12 {
		t.Errorf("%d records are left", len(all))
	}
}

// TestKeepNone has a number of files that nobody means.
func TestKeepNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{Size: 1000, Keep: -1})
	for n := range 30 {
		mustWrite(t, l, testRecords(testTime, fmt.Sprint("camera-", n)))
	}
	if old, err := rotated(path); err != nil || len(old) > 0 {
		t.Errorf("%d files were kept, error %v", len(old), err)
	}
}

// TestRotationByAge counts from the first record, across a restart.
func TestRotationByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for n, c := range []struct {
		after time.Duration
		files int
	}{{0, 0}, {time.Hour, 0}, {2 * time.Hour, 1}, {3 * time.Hour, 1}, {4 * time.Hour, 2}} {
		l := openTestLog(t, path, Rotation{Age: 90 * time.Minute})
		mustWrite(t, l, testRecords(testTime.Add(c.after), "x"))
		l.Close()
		if old, err := rotated(path); err != nil || len(old) != c.files {
			t.Errorf("after %v: %d files, error %v", c.after, len(old), err)
		}
		if got := len(records(t, path)); got != n+1 {
			t.Errorf("after %v: %d records", c.after, got)
		}
	}
}

// TestTorn continues after a line that a crash has cut off.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{})
	mustWrite(t, l, testRecords(testTime, "first"))
	l.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"received":"2026-`)
	f.Close()
	l = openTestLog(t, path, Rotation{})
	mustWrite(t, l, testRecords(testTime, "second"))
	mustWrite(t, l, testRecords(testTime, "third"))
	var got []string
	skipped, err := Read(path, func(r Record) { got = append(got, r.Entity) })
	if err != nil || skipped != 1 || strings.Join(got, " ") != "first second third" {
		t.Errorf("got %q, %d skipped, error %v", got, skipped, err)
	}
}

// TestLogMovedAway has another program take the file away, or empty it: what is
// acknowledged from then on is where people look for it.
func TestLogMovedAway(t *testing.T) {
	for name, away := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".1") },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		path := filepath.Join(t.TempDir(), "log")
		l := openTestLog(t, path, Rotation{Size: 1200})
		mustWrite(t, l, testRecords(testTime, "first"))
		mustWrite(t, l, testRecords(testTime, "first"))
		if err := away(path); err != nil {
			t.Fatal(err)
		}
		if err := l.write("source", testRecords(testTime, "second")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		skipped, err := Read(path, func(r Record) { got = append(got, r.Entity) })
		if err != nil || skipped != 0 || strings.Join(got, " ") != "second" {
			t.Errorf("%s: got %q, %d skipped, error %v", name, got, skipped, err)
		}
	}
}

func TestReadOddFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if _, err := Read(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "no", "log"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	l := openTestLog(t, path, Rotation{})
	mustWrite(t, l, testRecords(testTime, "x"))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	claims := bytes.Replace(good, []byte(`"entity_proven":false`), []byte(`"entity_proven":true`), 1)
	for name, text := range map[string][]byte{
		".20260102T030405.000000000Z": append(append(bytes.Repeat([]byte("x"), 3*maxRecord), '\n'), good...),
		".20260102T030406.000000000Z": append([]byte("{}\n\nnull\n"), claims...),
		".20260102T030407.000000000Z": good[:len(good)-1], // without an end
		".old":                        good,
		".new":                        []byte("rubbish"),
	} {
		if err := os.WriteFile(path+name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	skipped, err := Read(path, func(Record) { n++ })
	if err != nil || n != 3 || skipped != 5 {
		t.Errorf("%d records, %d skipped, error %v", n, skipped, err)
	}
}

// TestReadRotatedMeanwhile also finds the file it has already opened under its new
// name.
func TestReadRotatedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{})
	mustWrite(t, l, testRecords(testTime, "x"))
	if err := os.Link(path, path+".20260102T030405.000000000Z"); err != nil {
		t.Fatal(err)
	}
	if got := records(t, path); len(got) != 1 {
		t.Errorf("%d records of one", len(got))
	}
}

// TestReadWhileWriting sees every record once, or not yet.
func TestReadWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{Size: 2000, Keep: 1000})
	const each, writers = 100, 4
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				if err := l.write("", testRecords(testTime, fmt.Sprint(w, "-", n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		seen := map[string]bool{}
		for _, r := range records(t, path) {
			if seen[r.Entity] {
				t.Fatalf("%s is listed twice", r.Entity)
			}
			seen[r.Entity] = true
		}
	}
	group.Wait()
	if n := len(records(t, path)); n != each*writers {
		t.Errorf("%d records", n)
	}
}

// TestShares floods a log from one source, in the name of one entity and of many: the
// reports of others stay, and new ones are still accepted.
func TestShares(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, path, Rotation{Size: 64 << 10, Keep: 2})
	honest := func(n int) {
		t.Helper()
		if err := l.write("honest", testRecords(testTime, fmt.Sprint("camera ", n))); err != nil {
			t.Fatal(err)
		}
	}
	honest(1)
	refused := 0
	for n := range 20000 {
		for _, entity := range []string{"camera 1", fmt.Sprint("made up ", n)} {
			if err := l.write("flood", testRecords(testTime, entity)); errors.Is(err, errShare) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	honest(1)
	honest(2)
	seen := 0
	for _, r := range records(t, path) {
		if r.Entity == "camera 2" || r.Entity == "camera 1" {
			seen++
		}
	}
	if old, _ := rotated(path); len(old) > 0 || refused < 39000 || seen < 3 {
		t.Errorf("%d files were put aside, %d reports refused, %d records of cameras", len(old), refused, seen)
	}
}

// TestSharesOfManySources floods a log from ever new sources: older records stay, also
// across restarts, and later there is room again.
func TestSharesOfManySources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	rotation := Rotation{Size: 64 << 10, Keep: 2}
	l := openTestLog(t, path, rotation)
	if err := l.write("honest", testRecords(testTime, "camera 1")); err != nil {
		t.Fatal(err)
	}
	for n := range 20000 {
		if n%5000 == 4999 {
			l.Close()
			l = openTestLog(t, path, rotation)
		}
		err := l.write(fmt.Sprint("source ", n), testRecords(testTime, fmt.Sprint("made up ", n)))
		if err != nil && !errors.Is(err, errShare) {
			t.Fatal(err)
		}
	}
	if err := l.write("honest", testRecords(testTime.Add(24*time.Hour), "camera 2")); err != nil {
		t.Error(err)
	}
	all := records(t, path)
	old, _ := rotated(path)
	if info, err := os.Stat(path); err != nil || info.Size() > 32<<10 || len(old) > 0 || all[0].Entity != "camera 1" || all[len(all)-1].Entity != "camera 2" {
		t.Errorf("%d files were put aside, %d records, %v", len(old), len(all), err)
	}
}
