package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
// lines of a file: after two of them the PIN is not given until somebody removes the file.
func withinTries(k *config.Keystore, pauses []time.Duration, open func() (Store, error)) (Store, error) {
	if k.Refusals == "" || strings.HasPrefix(k.URI, "soft:") { // a file does not count
		return open()
	}
	before, err := refusalsBefore(k.Refusals)
	if err != nil {
		return nil, err
	}
	store, err := openUnclear(k, pauses, open)
	switch {
	case err == nil && before != nil:
		if err := os.Remove(k.Refusals); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, store.Close())
		}
	case keystore.PINRefused(err):
		err = errors.Join(err, addRefusals(k.Refusals, before, 1, err))
	case errors.Is(err, keystore.ErrUnclear):
		err = exit.WithCode(errors.Join(fmt.Errorf("%w; the PIN may be wrong and the token may count, so it is not given again: check the PIN and the device, then remove %s", err, k.Refusals),
			addRefusals(k.Refusals, before, mostRefusals, err)), exit.Secret)
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
	if n := bytes.Count(lines, []byte("\n")); n >= mostRefusals {
		return nil, exit.WithCode(fmt.Errorf("the PIN was not accepted when this was started before, so it is not given again: correct the PIN, then remove %s, which says why", path), exit.Secret)
	}
	return lines, nil
}

func addRefusals(path string, before []byte, count int, why error) error {
	line := fmt.Sprintf("%s %s\n", time.Now().UTC().Format(time.RFC3339), exit.OneLine(why))
	return atomicfile.Replace(path, append(before, bytes.Repeat([]byte(line), count)...), 0o600)
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
