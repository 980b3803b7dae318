package hsmtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Counters count what went through a module, in all processes that load it.
type Counters struct {
	Calls          map[string]uint64 // by the C_ name, since the module was made
	Sessions       int               // open now
	SessionObjects int               // there now
	TokenObjects   int               // made through the module, minus destroyed
	Fired          int               // hits of a fault since Inject
}

// The counters file in 64-bit words; see doc.go.
const (
	wordControl      = 1
	wordTokenObjects = 4
	wordCalls        = 8
	wordRules        = 80
	wordProcesses    = 80 + 3*256
	wordsEnd         = wordProcesses + 3*64
)

// Counters reads the counters. It may be called while calls are under way. Sessions
// and objects are those of the real module, whatever the program was told. Those of
// a process that has ended are not counted.
func (m *Module) Counters() Counters {
	w, err := m.board()
	if err != nil {
		m.fail(err)
	}
	c := Counters{Calls: map[string]uint64{}, TokenObjects: int(int64(w[wordTokenObjects]))}
	for i, name := range functions() {
		if n := w[wordCalls+i]; n > 0 {
			c.Calls[name] = n
		}
	}
	for p := wordProcesses; p < wordsEnd; p += 3 {
		if alive(int(w[p])) {
			c.Sessions += int(int64(w[p+1]))
			c.SessionObjects += int(int64(w[p+2]))
		}
	}
	if m.counts(w) {
		for r := wordRules; r < wordProcesses; r += 3 {
			c.Fired += int(w[r+1])
		}
	}
	return c
}

// board reads the counters file. There is none before the first call.
func (m *Module) board() (w [wordsEnd]uint64, err error) {
	raw, err := os.ReadFile(m.Control() + ".counters")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return w, nil
	case err != nil:
		return w, fmt.Errorf("hsmtest: %w", err)
	}
	if len(raw) < 8*len(w) {
		return w, nil // it is just being made
	}
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	return w, nil
}

// counts reports whether the hits told are those of the present faults.
func (m *Module) counts(w [wordsEnd]uint64) bool {
	info, err := os.Stat(m.Control())
	return err == nil && uint64(info.ModTime().UnixNano()) == w[wordControl] && uint64(info.Size()) == w[wordControl+2]
}

func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}
