package hsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// TB is the part of testing.TB that New needs, so that no program that uses
// Build links package testing.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
	TempDir() string
}

// A Module is a copy of the shared object, with a control file and counters of
// its own. Its methods may be used by several goroutines at a time.
type Module struct {
	Path string // of the shared object: what a program loads, or a URI's module-path

	target string
	fail   func(error)
	mu     sync.Mutex
	last   time.Time // of the control file: no two states of it have the same
}

// New makes a module in a directory of the test that forwards to the one at
// target. Without a C compiler the test is skipped, or fails if MSL_TEST_REQUIRE
// names softhsm.
func New(t TB, target string) *Module {
	t.Helper()
	m, err := Build(t.TempDir(), target)
	switch {
	case errors.Is(err, exec.ErrNotFound) && !strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "softhsm"):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	m.fail = func(err error) {
		t.Helper()
		t.Fatal(err)
	}
	return m
}

// Build makes a module in dir that forwards to the one at target, an absolute
// path. The methods of the result panic where those of New fail the test.
func Build(dir, target string) (*Module, error) {
	object, err := compiled()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	if !filepath.IsAbs(target) || strings.ContainsAny(target, "\r\n") {
		return nil, fmt.Errorf("hsmtest: target %q is not the absolute path of a module", target)
	}
	m := &Module{Path: filepath.Join(dir, "hsmtest.so"), target: target}
	m.fail = func(err error) { panic(err) }
	if err := os.WriteFile(m.Path, object, 0o700); err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	return m, m.write(nil)
}

// Control is the path of the control file.
func (m *Module) Control() string { return m.Path + ".control" }

// Inject replaces all faults; skipped calls and hits are counted from nothing.
// Every call that begins after it has returned meets the new faults, and calls
// that hang go on. A fault that makes no sense fails the test.
func (m *Module) Inject(faults ...Fault) {
	if err := m.write(faults); err != nil {
		m.fail(err)
	}
}

// Clear ends all faults.
func (m *Module) Clear() { m.Inject() }

// write replaces the control file in one step. Its time is always another one,
// for that is how a change is noticed.
func (m *Module) write(faults []Fault) error {
	text, err := m.text(faults)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := os.CreateTemp(filepath.Dir(m.Path), "control")
	if err != nil {
		return fmt.Errorf("hsmtest: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("hsmtest: %w", err)
	}
	now := time.Now()
	if !now.After(m.last) {
		now = m.last.Add(time.Nanosecond)
	}
	m.last = now
	if err := errors.Join(os.Chtimes(f.Name(), now, now), os.Rename(f.Name(), m.Control())); err != nil {
		return fmt.Errorf("hsmtest: %w", err)
	}
	return nil
}

func (m *Module) text(faults []Fault) (string, error) {
	lines := []string{"target " + m.target}
	for _, f := range faults {
		line, err := f.line()
		if err != nil {
			return "", err
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n", nil
}
