package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// attachedKey is where a backup holds the content of another file that a server needs:
// beside the record of the format, where every version of a server leaves it alone.
const attachedKey = "attached"

// Attach puts the content of another file into the backup at path, which no process
// may have open. It takes the place of what was attached before. The backup still
// opens as a state file.
func Attach(path string, content []byte) error {
	s, err := ReopenServer(path)
	if err != nil {
		return err
	}
	err = s.update("attach a file", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(formatBucket)).Put([]byte(attachedKey), frame(formatBucket, []byte(attachedKey), content))
	})
	return errors.Join(err, s.Close())
}

// Attached returns what is attached to a backup, without changing it, or nil.
func Attached(path string) (content []byte, err error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("bolt: %w", err)
	}
	defer from.Close()
	copied, err := os.CreateTemp("", "msl-hsm-attached-*")
	if err != nil {
		return nil, fmt.Errorf("bolt: %w", err)
	}
	defer beside{copied}.discard()
	if _, err := io.Copy(copied, from); err != nil {
		return nil, fmt.Errorf("bolt: read %s: %w", path, err)
	}
	if _, err := verify(copied.Name(), path); err != nil {
		return nil, err
	}
	s, err := ReopenServer(copied.Name())
	if err != nil {
		return nil, err
	}
	err = s.view("read what is attached", func(tx *bbolt.Tx) error {
		found, err := get(tx, formatBucket, []byte(attachedKey))
		content = bytes.Clone(found)
		return err
	})
	return content, errors.Join(err, s.Close())
}

// detach removes what is attached: it is not part of a state.
func detach(path string) error {
	s, err := ReopenServer(path)
	if err != nil {
		return err
	}
	err = s.update("detach a file", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(formatBucket)).Delete([]byte(attachedKey))
	})
	return errors.Join(err, s.Close())
}
