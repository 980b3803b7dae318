package hsmtest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCompile makes the shared object with a compiler that says how often it runs.
func TestCompile(t *testing.T) {
	dir := t.TempDir()
	runs := filepath.Join(dir, "runs")
	cc := func(text string) {
		t.Helper()
		path := filepath.Join(dir, "cc")
		script := "#!/bin/sh\necho run >>" + runs + "\nwhile [ \"$1\" != -o ]; do shift; done\nprintf '" + text + "' >\"$2\"\n"
		if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CC", path+" -g")
	}
	want := func(text string, times int) {
		t.Helper()
		made, err := object()
		log, _ := os.ReadFile(runs)
		if n := bytes.Count(log, []byte("run")); string(made) != text || err != nil || n != times {
			t.Errorf("%q, %v after %d runs, want %q after %d", made, err, n, text, times)
		}
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir) // on systems that have another variable
	cc("object")
	want("object", 1)
	want("object", 1)
	cc("of another compiler")
	want("of another compiler", 2)
	t.Setenv("CC", os.Getenv("CC")+" -O2")
	want("of another compiler", 3)
	t.Setenv("XDG_CACHE_HOME", os.DevNull)
	t.Setenv("HOME", os.DevNull)
	want("of another compiler", 4)
	want("of another compiler", 5)
}
