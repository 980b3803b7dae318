package auditlog

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A lineReader reads lines of bounded length.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) lineReader { return lineReader{bufio.NewReaderSize(r, maxLine)} }

// next returns the next line without its end, valid until the next call, and how many
// bytes were read. whole says that the line has an end and is not too long; a line that
// is too long is skipped to its end and not returned.
func (l lineReader) next() (text []byte, size int64, whole bool, err error) {
	text, err = l.r.ReadSlice('\n')
	size = int64(len(text))
	if err == nil {
		return text[:len(text)-1], size, true, nil
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		var more []byte
		more, err = l.r.ReadSlice('\n')
		size, text = size+int64(len(more)), nil
	}
	if err == io.EOF && size > 0 {
		err = nil
	}
	return text, size, false, err
}

// An end is where a log can continue.
type end struct {
	log      string
	last     Position
	size     int64  // bytes of the file up to that line
	torn     int64  // bytes after them that are not a line
	unsigned uint64 // records after the last mark with a checkpoint
	damaged  bool   // a line does not follow the one before
}

// errNotLog says that a file contains something else.
var errNotLog = errors.New("it is not an audit log")

// readEnd looks for the end of a log in one of its files. A file that is empty, or has only a
// part of its first line, has none.
func readEnd(r io.Reader) (e end, err error) {
	lines := newLineReader(r)
	var marked uint64
	begun := false // it has a part of its first line
	for {
		text, size, whole, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return e, err
		}
		l, errLine := parseLine(text)
		if !whole || errLine != nil {
			begun = !whole && e.size+e.torn == 0 && beginsHeader(text)
			e.torn += size
			continue
		}
		e.add(l, &marked)
		e.size, e.torn = e.size+e.torn+size, 0
	}
	if e.last.N == 0 && e.torn > 0 && !begun || e.last.N > 0 && e.log == "" {
		return e, errNotLog
	}
	return e, nil
}

// beginsHeader reports whether a text may be a part of the first line of a file, as a crash
// leaves it. After a loss of power, some file systems have zeros in place of the rest.
func beginsHeader(text []byte) bool {
	const start, event = `{"n":`, `,"event":"`
	tooLong := text == nil
	text = bytes.TrimRight(text, "\x00")
	if n := min(len(text), len(start)); tooLong || string(text[:n]) != start[:n] {
		return false
	}
	_, kind, told := strings.Cut(string(text), event)
	n := min(len(kind), len(eventFile))
	return !told || kind[:n] == eventFile[:n]
}

// add processes a line. marked counts the records after the newest mark.
func (e *end) add(l readLine, marked *uint64) {
	before := e.last.Chain
	if l.Event == eventFile && e.last.N == 0 {
		e.log = l.Log
		before, _ = parseChain(l.Previous)
	} else if l.N != e.last.N+1 {
		e.damaged = true
	}
	e.damaged = e.damaged || e.torn > 0 || follow(before, l.body) != l.chain
	e.last = l.position()
	switch {
	case l.Event == eventMark:
		*marked = 0
	case l.Event == eventCheckpoint:
		e.unsigned = *marked
	case !l.own():
		e.unsigned, *marked = e.unsigned+1, *marked+1
	}
}

// earlier returns the newest of the files that were rotated away from a path, or "". Their
// first records tell their order: logrotate gives the newest the lowest number.
func earlier(path string) (newest string, err error) {
	dir, base := filepath.Split(path)
	all, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return "", fmt.Errorf("cannot find the earlier files that it continues: %w; make the directory readable", err)
	}
	best := uint64(0)
	for _, e := range all {
		number, rotated := strings.CutPrefix(e.Name(), base+".")
		if _, err := strconv.ParseUint(number, 10, 64); !rotated || err != nil {
			continue
		}
		n, err := firstNumber(dir + e.Name())
		if err != nil {
			return "", fmt.Errorf("%s%s: %w", dir, e.Name(), err)
		}
		if n > best {
			newest, best = dir+e.Name(), n
		}
	}
	return newest, nil
}

// firstNumber returns the number of the first record of a file; a file without any has 0.
func firstNumber(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, _, whole, err := newLineReader(f).next()
	switch l, errLine := parseLine(text); {
	case err == io.EOF, err == nil && !whole && beginsHeader(text):
		return 0, nil
	case err != nil:
		return 0, err
	case errLine != nil || l.Event != eventFile:
		return 0, errNotLog
	default:
		return l.N, nil
	}
}
