package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// The state file is JSON after the header of package statefile. It holds no secrets:
// blobs are encrypted under the storage key. Anyone who can write it can remove keys or
// replace one with another of this TPM, so it has mode 0600.
const (
	stateMagic = "msl-hsm tpm state v1"
	maxState   = 16 << 20
)

// A state is a state file as last read or written.
type state struct {
	path string
	file stateFile
	sum  string // checksum of the content
	info fs.FileInfo
}

type stateFile struct {
	StorageKey storageKey  `json:"storage_key"`
	Keys       []storedKey `json:"keys"`
}

// A storageKey is the pinned public area of the storage key.
type storageKey struct {
	Handle handle `json:"handle"`
	Public []byte `json:"public"`
}

// A storedKey is one version of a provisioned key.
type storedKey struct {
	Label     string             `json:"label"`
	Version   uint32             `json:"version"`
	Algorithm keystore.Algorithm `json:"algorithm"`
	Handle    handle             `json:"handle,omitempty"` // 0 if it is not persistent
	Public    []byte             `json:"public"`
	Private   []byte             `json:"private"`
	Adopted   *adoption          `json:"adopted,omitempty"` // of a key that another program made
}

// A handle is written in hexadecimal, as by tpm2-tools.
type handle uint32

func (h handle) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint32(h)), nil }

func (h *handle) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil || n != 0 && n>>24 != 0x81 {
		return fmt.Errorf("%q is not a persistent handle", text)
	}
	*h = handle(n)
	return nil
}

func readState(path string) (*state, error) {
	if path == "" {
		return nil, fmt.Errorf("tpm: no state file is named: add ?state=/path to the URI: %w", keystore.ErrNotFound)
	}
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	st := &state{path: path, info: info}
	if st.file, st.sum, err = parseState(data); err != nil {
		return nil, fmt.Errorf("tpm: %s: %w: restore it from a copy, or enroll this device again with a new one: %w", path, err, keystore.ErrBadData)
	}
	return st, nil
}

// again reads the file if it has changed since it was last read or written, otherwise it
// returns nil.
func (st *state) again() (*state, error) {
	info, err := os.Stat(st.path)
	if err == nil && os.SameFile(info, st.info) && info.ModTime().Equal(st.info.ModTime()) && info.Size() == st.info.Size() {
		return nil, nil
	}
	return readState(st.path)
}

func readFile(path string) ([]byte, fs.FileInfo, error) {
	data, info, err := statefile.Read(path, maxState)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("tpm: state file %s does not exist: initialize this TPM first, or mount the directory: %w", path, keystore.ErrNotFound)
	case errors.Is(err, statefile.ErrOther):
		return nil, nil, fmt.Errorf("tpm: %s %w: %w", path, err, keystore.ErrBadData)
	case errors.Is(err, statefile.ErrWritable):
		return nil, nil, fmt.Errorf("tpm: state file %s %w: %w", path, err, keystore.ErrWeakKey)
	case err != nil:
		return nil, nil, fmt.Errorf("tpm: state file: %w: %w", keystore.ErrUnavailable, err)
	}
	return data, info, nil
}

// parseState reads a state file, and refuses anything that bytes would not write.
func parseState(data []byte) (f stateFile, sum string, err error) {
	text, sum, err := statefile.Split(stateMagic, data)
	if err != nil {
		return f, "", err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return f, "", fmt.Errorf("the state file is damaged: %w", err)
	}
	if d.More() {
		return f, "", errors.New("the state file is damaged: there is data after its end")
	}
	return f, sum, f.check()
}

func (f stateFile) check() error {
	if len(f.StorageKey.Public) == 0 || f.StorageKey.Handle == 0 {
		return errors.New("the state file has no storage key")
	}
	seen := map[string]keystore.Algorithm{}
	for _, k := range f.Keys {
		version := k.Label + "\x00" + strconv.FormatUint(uint64(k.Version), 10)
		a, other := seen[k.Label]
		_, twice := seen[version]
		if k.Label == "" || strings.IndexByte(k.Label, 0) >= 0 || k.Version == 0 || !k.Algorithm.Valid() || twice || other && a != k.Algorithm {
			return fmt.Errorf("the state file is damaged: key %q version %d is not valid", k.Label, k.Version)
		}
		seen[k.Label], seen[version] = k.Algorithm, k.Algorithm
	}
	return nil
}

func (f stateFile) bytes() (data []byte, sum string, err error) {
	text, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, "", err
	}
	data, sum = statefile.Join(stateMagic, append(text, '\n'))
	return data, sum, nil
}

// create writes the first version of the file, unless one exists.
func (st *state) create() error {
	err := st.write(st.file, atomicfile.Create)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("tpm: state file %s: %w", st.path, keystore.ErrExists)
	}
	return err
}

// change edits the file; if another process has changed it, the error is
// [keystore.ErrBusy].
func (st *state) change(edit func(*stateFile)) error {
	err := statefile.Change(st.path, func() error { return st.replace(edit) })
	if err == statefile.ErrLocked {
		return fmt.Errorf("tpm: state file %s %w: %w", st.path, err, keystore.ErrBusy)
	}
	return err
}

// replace is change while no other process changes the file.
func (st *state) replace(edit func(*stateFile)) error {
	data, _, err := readFile(st.path)
	if err != nil {
		return err
	}
	f, sum, err := parseState(data)
	if err != nil {
		return fmt.Errorf("tpm: %s: %w: restore it from a copy: %w", st.path, err, keystore.ErrBadData)
	}
	if sum != st.sum {
		return fmt.Errorf("tpm: state file %s was changed by another process, open it again: %w", st.path, keystore.ErrBusy)
	}
	edit(&f)
	return st.write(f, atomicfile.Replace)
}

func (st *state) write(f stateFile, put func(path string, data []byte, mode fs.FileMode) error) error {
	data, sum, err := f.bytes()
	if err != nil {
		return fmt.Errorf("tpm: state file: %w", err)
	}
	err = put(st.path, data, atomicfile.DefaultMode)
	if err == nil || errors.Is(err, atomicfile.ErrUnsynced) {
		st.file, st.sum = f, sum
		info, errStat := os.Stat(st.path)
		st.info, err = info, errors.Join(err, errStat)
	}
	if err != nil {
		return fmt.Errorf("tpm: state file: %w: %w", keystore.ErrUnavailable, err)
	}
	return nil
}
