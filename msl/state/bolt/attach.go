package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// attachedKey holds the content of another file that a server needs, in a backup. It is
// in the settings, where every version of a server leaves it alone.
const attachedKey = "attached"

// Attach stores the content of another file in the backup at path, which no process may
// have open. It replaces earlier attached content. The backup can still be opened as a
// state file.
func Attach(path string, content []byte) error {
	s, err := unguarded(path)
	if err != nil {
		return err
	}
	err = s.db.Update(context.Background(), func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(attachedKey), content)
	})
	if err != nil {
		err = fmt.Errorf("bolt: attach a file: %w", err)
	}
	return errors.Join(err, s.Close())
}

// Attached returns the content attached to a backup, or nil. It does not change the
// backup.
func Attached(path string) (content []byte, err error) {
	err = onCopy(path, func(copied string) error {
		if _, err := verify(copied, path); err != nil {
			return err
		}
		s, err := unguarded(copied)
		if err != nil {
			return err
		}
		content, err = s.attached()
		return errors.Join(err, s.Close())
	})
	return content, err
}

func (s *Server) attached() (content []byte, err error) {
	err = s.db.View(context.Background(), func(tx kv.Reader) error {
		found, err := tx.Get(kv.Settings, []byte(attachedKey))
		content = bytes.Clone(found)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bolt: read what is attached: %w", err)
	}
	return content, nil
}

// detach removes attached content, which is not part of a state.
func (s *Server) detach() error {
	err := s.db.Update(context.Background(), func(tx kv.Tx) error {
		return tx.Delete(kv.Settings, []byte(attachedKey))
	})
	if err != nil {
		return fmt.Errorf("bolt: detach a file: %w", err)
	}
	return nil
}
