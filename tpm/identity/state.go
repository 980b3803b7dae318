package identity

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// A state is the content of a state file. It has no secrets: only the TPM can decrypt
// the private areas.
type state struct {
	Version    int           `json:"version"`
	EK         *ekState      `json:"ek,omitempty"`
	StorageKey HexBytes      `json:"storage_key,omitempty"` // TPM Name
	AK         *tpm.Blob     `json:"ak,omitempty"`
	Keys       []tpm.Blob    `json:"keys,omitempty"` // LDevIDs
	Next       []tpm.Blob    `json:"next,omitempty"` // the new LDevIDs of a renewal under way
	Last       *outcome      `json:"last,omitempty"` // of the last attempt that got an answer
	Identity   *deviceResult `json:"identity,omitempty"`
}

type ekState struct {
	Kind         EKKind   `json:"kind"`
	Public       []byte   `json:"public"`
	Certificates [][]byte `json:"certificates,omitempty"` // from a file, the EK's own first
}

type outcome struct {
	Time  time.Time `json:"time"`
	State string    `json:"state"` // enrolled, or the word of a fault
}

// A deviceResult is what the authority gave the device.
type deviceResult struct {
	Name         string    `json:"name"`
	Enrolled     time.Time `json:"enrolled"`
	Certificates [][]byte  `json:"certificates,omitempty"` // in the order of the keys
	CA           []byte    `json:"ca,omitempty"`
}

const (
	stateVersion = 1
	stateMagic   = "msl-hsm tpm identity 1"
	maxStateFile = 1 << 20
)

// ready returns [ErrNotInitialized] if Init did not complete.
func (s *state) ready() error {
	if s.EK == nil || s.AK == nil || len(s.Keys) == 0 {
		return fmt.Errorf("enroll: %w", ErrNotInitialized)
	}
	return nil
}

// forgetKeys removes keys that no longer load, and the identity with them.
func (s *state) forgetKeys() {
	s.AK, s.Keys, s.Next, s.Identity, s.Last = nil, nil, nil, nil, nil
}

// certificate returns the certificate of the i-th LDevID, or nil if it has none.
func (s *state) certificate(i int) (*x509.Certificate, error) {
	if s.Identity == nil || i >= len(s.Identity.Certificates) {
		return nil, nil
	}
	c, err := x509.ParseCertificate(s.Identity.Certificates[i])
	if err != nil {
		return nil, proof.Fail(ErrDamaged, "certificate: %w", err)
	}
	return c, nil
}

// A file is the state file as it was last read or written.
type file struct {
	path  string
	state state
	sum   string
}

// save changes the state and writes it; after an error the state is unchanged. If another
// process changed the file in the meantime, the error is [ErrInUse].
func (f *file) save(change func(*state)) error {
	err := statefile.Change(f.path, func() error { return f.replace(change) })
	if err == statefile.ErrLocked {
		return proof.Fail(ErrInUse, "%s %w", f.path, err)
	}
	return err
}

// replace is save while no other process changes the file.
func (f *file) replace(change func(*state)) error {
	_, sum, err := readState(f.path)
	switch {
	case err != nil:
		return err
	case sum != f.sum:
		return proof.Fail(ErrInUse, "another process changed %s meanwhile: try again", f.path)
	}
	next := f.state
	next.Keys, next.Next = slices.Clone(f.state.Keys), slices.Clone(f.state.Next)
	change(&next)
	sum, err = next.write(f.path)
	if sum != "" {
		f.state, f.sum = next, sum
	}
	return err
}

// readState reads a file, or returns an empty state if there is none. Its checksum keeps
// damage from being mistaken for a cleared TPM.
func readState(path string) (s state, sum string, err error) {
	text, _, err := statefile.Read(path, maxStateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{Version: stateVersion}, "", nil
	case errors.Is(err, statefile.ErrOther):
		return s, "", proof.Fail(ErrDamaged, "%s %w", path, err)
	case errors.Is(err, statefile.ErrWritable):
		return s, "", fmt.Errorf("enroll: state file %s %w: %w", path, err, keystore.ErrWeakKey)
	case err != nil:
		return s, "", fmt.Errorf("enroll: state file: %w", err)
	}
	if s, sum, err = parseState(text); err != nil {
		return s, "", proof.Fail(ErrDamaged, "%s: %w", path, err)
	}
	return s, sum, nil
}

func parseState(text []byte) (s state, sum string, err error) {
	payload, sum, err := statefile.Split(stateMagic, text)
	if err != nil {
		return s, "", errors.New("checksum is wrong")
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return s, "", errors.New("does not decode")
	}
	if s.Version != stateVersion {
		return s, "", fmt.Errorf("version %d, but this program only reads version %d", s.Version, stateVersion)
	}
	for _, b := range append(append(s.Keys[:len(s.Keys):len(s.Keys)], s.Next...), s.blobs()...) {
		if _, err := proof.ParsePublic(b.Public); err != nil {
			return s, "", err
		}
	}
	return s, sum, nil
}

// blobs returns the AK, and the EK as a blob without private area.
func (s *state) blobs() (list []tpm.Blob) {
	if s.AK != nil {
		list = append(list, *s.AK)
	}
	if s.EK != nil {
		list = append(list, tpm.Blob{Public: s.EK.Public})
	}
	return list
}

// write replaces the file atomically, and returns its checksum. If both the checksum and
// the error are set, the file is written, but a loss of power could still undo that.
func (s *state) write(path string) (sum string, err error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("enroll: state file: %w", err)
	}
	data, sum := statefile.Join(stateMagic, payload)
	err = atomicfile.Replace(path, data, atomicfile.DefaultMode)
	if err == nil {
		return sum, nil
	}
	if !errors.Is(err, atomicfile.ErrUnsynced) {
		sum = ""
	}
	return sum, fmt.Errorf("enroll: state file: %w", err)
}
