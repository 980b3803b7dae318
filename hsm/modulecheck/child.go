package modulecheck

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Descriptors that a child inherits, besides its standard input, from which it reads a request: a
// module may write to the standard output.
const (
	eventFD = 3
	pinFD   = 4
)

const maxPIN = 1024

// A request is what a child is asked to do.
type request struct {
	Step              string
	Initialize        string // text for C_Initialize
	URI               string // names the token, and the module by its path
	PIN               bool   // it comes on pinFD
	Wait, CallTimeout time.Duration
	Done              []string // groups of the suite that are not to be run
	Pairs             []pair
}

// An event is what a child tells. Each has one field, but Failed, which has its kind.
type event struct {
	Begins string  `json:",omitempty"` // a check
	Result *Result `json:",omitempty"`
	Done   string  `json:",omitempty"` // a group
	About  *About  `json:",omitempty"`
	Pairs  []pair  `json:",omitempty"`
	Failed string  `json:",omitempty"` // the whole step
	Kind   int     `json:",omitempty"` // of kinds, from 1
	End    bool    `json:",omitempty"`
}

// kinds are the errors that are the same on both sides.
func kinds() []error {
	return []error{keystore.ErrPIN, keystore.ErrExists, keystore.ErrNotFound, keystore.ErrBusy, keystore.ErrWeakKey, keystore.ErrUnavailable}
}

// A failedStep is the error of a child.
type failedStep struct {
	text string
	kind error
}

// Error is the text of the child.
func (f failedStep) Error() string { return f.text }

// Unwrap is the kind of the error, or nil.
func (f failedStep) Unwrap() error { return f.kind }

// A reporter writes events.
type reporter struct {
	mu   sync.Mutex
	to   io.Writer
	done []string // groups that are not to be run
}

func (r *reporter) write(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line, err := json.Marshal(e)
	if err == nil {
		_, _ = r.to.Write(append(line, '\n')) // without the other process nobody is told
	}
}

// result tells a result, with its meaning.
func (r *reporter) result(one Result) {
	if one.Verdict == Missing || one.Verdict == Wrong {
		one.Means = meaning(one)
	}
	r.write(event{Result: &one})
}

// of tells a result by what an error says.
func (r *reporter) of(name string, err error) {
	c := newCheck(r, name)
	if err != nil {
		c.Error(err)
	}
	r.result(c.verdict())
}

// Serve does one step for [Run] in another process. The other process is told of errors.
func Serve() error {
	out := os.NewFile(eventFD, "events")
	if out == nil {
		return errors.New("modulecheck: this process was not started by Run")
	}
	defer out.Close()
	r := &reporter{to: out}
	err := serve(r, os.Stdin)
	if err != nil {
		kind := slices.IndexFunc(kinds(), func(k error) bool { return errors.Is(err, k) })
		r.write(event{Failed: err.Error(), Kind: kind + 1})
	} else {
		r.write(event{End: true})
	}
	return err
}

func serve(r *reporter, in io.Reader) error {
	var q request
	if err := json.NewDecoder(bufio.NewReader(in)).Decode(&q); err != nil {
		return fmt.Errorf("modulecheck: request: %w", err)
	}
	r.done = q.Done
	s := &step{request: q, reporter: r}
	if q.PIN {
		pin, err := readPIN()
		if err != nil {
			return err
		}
		defer pin.Close()
		s.pin = pin
	}
	do, known := map[string]func() error{
		stepAbout: s.about, stepClean: s.clean, stepSuite: s.suite,
		stepMake: s.makePairs, stepOther: s.others, stepOurs: s.ours,
	}[q.Step]
	if !known {
		return fmt.Errorf("modulecheck: unknown step %q", q.Step)
	}
	return do()
}

// readPIN reads the PIN into locked memory.
func readPIN() (*lockedmem.Buffer, error) {
	f := os.NewFile(pinFD, "pin")
	if f == nil {
		return nil, keystore.NoPINf("modulecheck: no PIN")
	}
	defer f.Close()
	b := make([]byte, maxPIN+1)
	defer clear(b)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || n > maxPIN {
		return nil, keystore.NoPINf("modulecheck: PIN of %d bytes", n)
	}
	return lockedmem.Copy(b[:n]), nil
}
