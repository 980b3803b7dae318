package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// mostRefusals is how many starts in a row may give a wrong PIN: some tokens lock it after three.
const mostRefusals = 2

// startPauses come before a start gives the PIN again if the token did not say whether it is right:
// time for a device that starts, too. A store gives it twice each time, so eight times at most, since
// many tokens lock it after ten.
var startPauses = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

// withinTries opens the key store of a process that is started again when it ends, by a supervisor or
// by a connection to a socket of systemd. The starts at which the token did not accept the PIN are
// lines of a file: after two of them, or four that ended before the token had answered, the PIN is not
// given until somebody removes the file.
func withinTries(k *config.Keystore, pauses []time.Duration, open func() (Store, error)) (Store, error) {
	if k.Refusals == "" || strings.HasPrefix(k.URI, "soft:") { // a file does not count
		return open()
	}
	before, err := refusalsBefore(k.Refusals)
	if err != nil {
		return nil, err
	}
	notes := &given{path: k.Refusals, log: k.Log}
	if !k.Isolate { // else the process survives what the library does
		k.Login = notes.login
	}
	store, err := openUnclear(k, pauses, open)
	switch {
	case err == nil && before != nil:
		if err := notes.forget(); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	case keystore.PINRefused(err):
		err = errors.Join(err, addRefusals(k, notes, 1, err))
	case errors.Is(err, keystore.ErrUnclear):
		err = exit.WithCode(errors.Join(fmt.Errorf("%w; the PIN may be wrong and the token may count, so it is not given again: check the PIN and the device, then remove %s", err, k.Refusals),
			addRefusals(k, notes, mostRefusals, err)), exit.Secret)
	}
	return store, err
}

// refusalsBefore returns the lines of the file, of which there are too few to refuse the start.
func refusalsBefore(path string) ([]byte, error) {
	lines, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return nil, exit.Usagef("refused PINs cannot be counted: %w: make that directory, or correct STATE_DIRECTORY", err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if weigh(lines) >= mostRefusals*refusalWeight {
		return nil, exit.WithCode(fmt.Errorf("the PIN was not accepted when this was started before, so it is not given again: correct the PIN, then remove %s, which says why", path), exit.Secret)
	}
	return lines, nil
}

// refusalWeight is that of a PIN that was not accepted, and 1 is that of one without an answer.
const refusalWeight = 2

// weigh counts the lines of the file.
func weigh(lines []byte) (n int) {
	for line := range bytes.Lines(lines) {
		if n++; !bytes.HasSuffix(line, unanswered) {
			n += refusalWeight - 1
		}
	}
	return n
}

// addRefusals adds lines to the file. Where it cannot, as on a full disk, it tries again until it can
// or the process is to end: the next start would give the PIN once more.
func addRefusals(k *config.Keystore, notes *given, count int, why error) error {
	added := bytes.Repeat(refusal(exit.OneLine(why)), count)
	for told := false; ; told = true {
		err := notes.change(func(lines []byte) []byte { return append(lines, added...) })
		if err == nil {
			return nil
		}
		if k.Log != nil && !told {
			k.Log.Error("the token did not accept the PIN, which cannot be noted: this process waits until it can be, since the next one would give the PIN again", "why", why, "error", err)
		}
		if k.Pauses != nil {
			k.Pauses(notePause)
		}
		select {
		case <-time.After(notePause):
		case <-k.Ends:
			return err
		}
	}
}

// notePause is that between tries to write the file.
const notePause = 10 * time.Second

func refusal(why string) []byte {
	return fmt.Appendf(nil, "%s %s\n", time.Now().UTC().Format(time.RFC3339), why)
}

// unanswered ends the line of a PIN that was given to a token, and not answered in this process.
var unanswered = []byte(" the PIN was given, and the process ended before the token answered\n")

// A given is a PIN that tokens are being given, each of which is a line of the file until it answers:
// a library that crashes then ends the process.
type given struct {
	path string
	log  *slog.Logger
	due  atomic.Int64 // answers
	mu   sync.Mutex
}

// login gives the PIN.
func (g *given) login(give func() error) error {
	err := g.change(func(lines []byte) []byte { return append(lines, refusal(string(unanswered[1:len(unanswered)-1]))...) })
	if err != nil && g.log != nil {
		g.log.Warn("it cannot be noted that the PIN is being given: if the library crashes now, the next start gives it again", "error", err)
	}
	if err == nil {
		g.due.Add(1)
		defer g.answered()
	}
	return give()
}

func (g *given) answered() {
	g.due.Add(-1)
	_ = g.change(withoutUnanswered)
}

// forget drops what earlier starts noted, unless one of several tokens has still to answer: they may
// have ended before that one did.
func (g *given) forget() error {
	return g.change(func(lines []byte) []byte {
		if g.due.Load() > 0 {
			return lines
		}
		return nil
	})
}

// withoutUnanswered is the file without its last unanswered line.
func withoutUnanswered(lines []byte) []byte {
	at := bytes.LastIndex(lines, unanswered)
	if at < 0 {
		return lines
	}
	begin := bytes.LastIndexByte(lines[:at], '\n') + 1
	return append(lines[:begin], lines[at+len(unanswered):]...)
}

// change writes the file, or removes one without lines.
func (g *given) change(to func(lines []byte) []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	lines, err := os.ReadFile(g.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if lines = to(lines); len(lines) == 0 {
		if err := os.Remove(g.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return atomicfile.Replace(g.path, lines, 0o600)
}

// openUnclear opens the key store, again after each pause while the answer to the PIN is unclear. A
// PIN that cannot be read again is given once.
func openUnclear(k *config.Keystore, pauses []time.Duration, open func() (Store, error)) (Store, error) {
	for {
		store, err := open()
		if !errors.Is(err, keystore.ErrUnclear) || len(pauses) == 0 || k.PIN != "" && !isFile(k.PIN) && !filepath.IsAbs(k.PIN) {
			return store, err
		}
		if k.Log != nil {
			k.Log.Warn("the token does not say whether the PIN is right: it is given again after a pause", "pause", pauses[0], "error", err)
		}
		if k.Pauses != nil {
			k.Pauses(pauses[0])
		}
		select {
		case <-time.After(pauses[0]):
			pauses = pauses[1:]
		case <-k.Ends:
			return nil, fmt.Errorf("stopped before the PIN was given again: %v: %w", err, keystore.ErrUnavailable)
		}
	}
}
