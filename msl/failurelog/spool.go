package failurelog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// A spool keeps unsent failures in a file: a line for each failure, and one for the
// counts of lost ones. Each time, a new file is written and then renamed, so that it is
// complete whenever the process ends. A separate lock file keeps other reporters out.
type spool struct {
	path string
	lock *os.File
}

// A spoolLine is a failure, or the counts of lost and skipped ones.
type spoolLine struct {
	*Failure
	Lost    uint32 `json:"lost,omitempty"`
	Skipped uint32 `json:"skipped,omitempty"`
}

const (
	maxLine  = 1 << 10 // bytes
	maxSpool = 2 * maxPending * maxLine
)

func openSpool(path string) (*spool, Report, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, Report{}, fmt.Errorf("%w: spool %s: %w", errOwn, path, err)
	}
	s := &spool{path: path, lock: lock}
	p, err := s.read()
	if err != nil {
		return nil, Report{}, errors.Join(fmt.Errorf("%w: %w", errOwn, err), s.close())
	}
	return s, p, nil
}

// read reads what an earlier process left. Damaged lines are counted.
func (s *spool) read() (Report, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, err
	}
	defer f.Close()
	return readLines(io.LimitReader(f, maxSpool))
}

func readLines(r io.Reader) (p Report, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxLine), maxLine)
	for lines.Scan() {
		p.readLine(lines.Bytes())
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // the rest is not a spool of this package
		p.Skipped = sum(p.Skipped, 1)
		return p, nil
	}
	return p, lines.Err()
}

func (p *Report) readLine(line []byte) {
	l := spoolLine{Failure: &Failure{}}
	err := decode(line, &l, true)
	switch {
	case err == nil && *l.Failure == Failure{} && l.Lost+l.Skipped > 0:
		p.Lost, p.Skipped = sum(p.Lost, l.Lost), sum(p.Skipped, l.Skipped)
	case err == nil && l.Lost == 0 && l.Skipped == 0 && l.Failure.check() == nil:
		p.add(l.Failure.plain())
	default:
		p.Skipped = sum(p.Skipped, 1)
	}
}

func (s *spool) write(p Report) error {
	if len(p.Failures) == 0 && p.Lost == 0 && p.Skipped == 0 {
		if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return atomicfile.Replace(s.path, p.lines(), atomicfile.DefaultMode)
}

// lines encodes a report as the content of a spool.
func (p *Report) lines() []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	if p.Lost > 0 || p.Skipped > 0 {
		e.Encode(spoolLine{Lost: p.Lost, Skipped: p.Skipped}) // writing to a buffer never fails
	}
	for n := range p.Failures {
		e.Encode(spoolLine{Failure: &p.Failures[n]})
	}
	return text.Bytes()
}

func (s *spool) close() error { return s.lock.Close() }

// ErrSpoolInUse says that another Reporter, of this or another process, uses the spool.
var ErrSpoolInUse = errors.New("another reporter uses it: give each its own")
