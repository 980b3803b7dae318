package softhsm

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/hsm"
)

// Clone copies the token to another one in its directory, with the same keys and PINs,
// like the cloning of partitions by HSM manufacturers. The new label is shown as given:
// at most 32 bytes. Programs that have the module open may not see the new token until
// they open it again.
func (t *Token) Clone(label string) (*Token, error) {
	if label == "" || len(label) > labelSize {
		return nil, fmt.Errorf("softhsm: clone a token to label %q: it must be 1 to %d bytes long", label, labelSize)
	}
	tokens := filepath.Join(filepath.Dir(t.Config), "tokens")
	from, object, err := find(tokens, t.Label)
	if err != nil {
		return nil, fmt.Errorf("softhsm: clone %q: %w", t.Label, err)
	}
	serial := make([]byte, 8)
	rand.Read(serial)
	name := hex.EncodeToString(serial)
	copy(object[labelAt:], padded(label))
	copy(object[serialAt:], name)
	if err := copyToken(from, object, filepath.Join(tokens, "clone-"+name)); err != nil {
		return nil, fmt.Errorf("softhsm: clone %q: %w", t.Label, err)
	}
	uri := hsm.URI{Token: label, ModulePath: t.Module}
	return &Token{Module: t.Module, Config: t.Config, Label: label, URI: uri.String(), PIN: t.PIN}, nil
}

// copyToken copies a token, except its object, in one step for programs that list the tokens:
// SoftHSM completes what it finds incomplete, and ends a process that finds a serial number twice.
func copyToken(from string, object []byte, to string) error {
	hidden := filepath.Join(filepath.Dir(to), "..", filepath.Base(to))
	defer os.RemoveAll(hidden)
	if err := os.CopyFS(hidden, os.DirFS(from)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(hidden, objectFile), object, 0o600); err != nil {
		return err
	}
	return os.Rename(hidden, to)
}

// The positions of a token's label and serial number in its file: SoftHSM writes its
// attributes in numerical order (ObjectFile.cpp of 2.6).
const (
	objectFile = "token.object"
	labelAt    = 0x20
	labelSize  = 32
	serialAt   = 0x58
	serialSize = 16
)

func padded(label string) []byte {
	return append([]byte(label), bytes.Repeat([]byte{' '}, labelSize-len(label))...)
}

// find finds the directory of a token, and reads the object that describes it.
func find(tokens, label string) (dir string, object []byte, err error) {
	all, err := os.ReadDir(tokens)
	for _, e := range all {
		dir = filepath.Join(tokens, e.Name())
		object, failed := os.ReadFile(filepath.Join(dir, objectFile))
		if len(object) >= serialAt+serialSize && bytes.Equal(object[labelAt:labelAt+labelSize], padded(label)) {
			return dir, object, nil
		}
		if e.IsDir() && !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	return "", nil, cmp.Or(err, errors.New("no such token"))
}
