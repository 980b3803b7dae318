package tpm

import (
	"bytes"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// CheckState reads the text of a state file as if its checksum were right. Writing and
// reading it again must give the same, and using its keys must not panic.
func CheckState(text []byte) error {
	data, _ := statefile.Join(stateMagic, text)
	f, _, err := parseState(data)
	if err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrBadData, err)
	}
	data, sum, err := f.bytes()
	if err != nil {
		return err
	}
	again, sum2, err := parseState(data)
	if err != nil || sum != sum2 {
		return fmt.Errorf("written and read: %w", err)
	}
	if data2, _, err := again.bytes(); err != nil || !bytes.Equal(data, data2) {
		return fmt.Errorf("written and read, another state: %w", err)
	}
	s := newStore(&storage{key: newObject(nil, f.StorageKey.Public, nil)}, &state{file: f}, nil)
	_, err = s.List()
	return err
}

// OpenFile opens a character device.
func OpenFile(path string) (io.ReadWriteCloser, error) { return openFile(path) }

// Unmanaged reports whether a device is flushed when it is opened.
func Unmanaged(path string) bool { return unmanaged(path) }
