package kv

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// copyKey is in the settings while a copy is not complete. Its value tells who copies; it is 1
// where earlier versions did.
const copyKey = "importing"

// ErrOvertaken: another copy to the same place began later, or was completed.
var ErrOvertaken = errors.New("another process began to copy to the same place, or finished, so this one stopped and changed nothing since")

// ErrUnfinished: a copy was begun and not completed.
var ErrUnfinished = fmt.Errorf("%w: it was not copied completely: copy it again", ErrDamaged)

// A Copy is a store into which the records of another one are copied. Until Finish, whoever asks
// [Copied] does not take it for a complete one. Its Update is [ErrOvertaken] as soon as another
// copy to the same store began, or was completed: one that was paused for long overwrites
// nothing that happened since.
type Copy struct {
	Store
	own []byte
}

// BeginCopy begins a copy to a store that has nothing in tables, or what an earlier copy left that
// was not completed. Otherwise the error is [ErrExists].
func BeginCopy(ctx context.Context, to Store, tables []string) (*Copy, error) {
	c := &Copy{to, make([]byte, 16)}
	rand.Read(c.own)
	return c, to.Update(ctx, func(tx Tx) error {
		begun, err := tx.Get(Settings, []byte(copyKey))
		if err == nil && begun == nil {
			err = emptyIn(tx, tables)
		}
		if err != nil {
			return err
		}
		return tx.Put(Settings, []byte(copyKey), c.own)
	})
}

func emptyIn(r Reader, tables []string) error {
	for _, table := range tables {
		found, err := r.Range(table, nil, nil, 1)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("a store with records %w there", ErrExists)
		}
	}
	return nil
}

// Update implements [Store].
func (c *Copy) Update(ctx context.Context, fn func(Tx) error) error {
	return c.Store.Update(ctx, func(tx Tx) error {
		begun, err := tx.Get(Settings, []byte(copyKey))
		if err != nil {
			return err
		}
		if !bytes.Equal(begun, c.own) {
			return ErrOvertaken
		}
		return fn(tx)
	})
}

// Finish makes the copy complete.
func (c *Copy) Finish(ctx context.Context) error {
	return c.Update(ctx, func(tx Tx) error { return tx.Delete(Settings, []byte(copyKey)) })
}

// Copied refuses a store into which a copy was begun and not completed: [ErrUnfinished].
func Copied(r Reader) error {
	begun, err := r.Get(Settings, []byte(copyKey))
	if err == nil && begun != nil {
		err = ErrUnfinished
	}
	return err
}
