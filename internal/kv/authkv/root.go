package authkv

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Key makes and checks tags. Both methods may be slow, or fail for a while.
type Key interface {
	// Tag returns a tag over data. It may contain the version of the key that made it.
	Tag(data []byte) ([]byte, error)
	// Check reports whether a tag is one over data. An error means that this could not be
	// determined.
	Check(data, tag []byte) (bool, error)
}

// ErrOtherKey is a [kv.ErrForged]: the root was made with another key, or with a version that
// is gone.
var ErrOtherKey = fmt.Errorf("%w: the record that authenticates the others was not made with the key of these servers", kv.ErrForged)

// rootKey is a key in the settings.
const rootKey = "root"

// A root says what is in a store. Its id identifies one store, so that an earlier one in
// the same place, which may have had more changes, is distinguished from it.
type root struct {
	id      [idSize]byte
	changes uint64 // so far
	sum     sum
}

const (
	idSize   = 16
	headSize = idSize + 8 + sumSize // of the record, before the tag
)

// newRoot returns the root of a new store.
func newRoot(of sum) root {
	r := root{sum: of}
	rand.Read(r.id[:])
	return r
}

// follows checks that a root can be a later one of the same store as old.
func (r *root) follows(old *root) error {
	switch {
	case r.id != old.id:
		return fmt.Errorf("authkv: %w: it was replaced by another state", kv.ErrForged)
	case r.changes < old.changes || r.changes == old.changes && r.sum != old.sum:
		return fmt.Errorf("authkv: %w: the state went back, from change %d to %d", kv.ErrForged, old.changes, r.changes)
	}
	return nil
}

// signed returns the data that the tag covers.
func (r root) signed() []byte {
	return append([]byte("msl-hsm state root 2\x00"), r.head()...)
}

func (r root) head() []byte {
	b := binary.BigEndian.AppendUint64(slices.Clone(r.id[:]), r.changes)
	return append(b, r.sum.encode()...)
}

func (r root) encode(k Key) ([]byte, error) {
	tag, err := k.Tag(r.signed())
	if err != nil {
		return nil, fmt.Errorf("authkv: authenticate the state: %w", err)
	}
	return append(r.head(), tag...), nil
}

// readHead reads a root without checking its tag.
func readHead(b []byte) root {
	r := root{changes: changesIn(b), sum: decodeSum(b[idSize+8:])}
	copy(r.id[:], b)
	return r
}

// changesIn returns the count of changes of a root.
func changesIn(b []byte) uint64 { return binary.BigEndian.Uint64(b[idSize:]) }

func decodeRoot(b []byte, k Key) (root, error) {
	if len(b) < headSize {
		return root{}, fmt.Errorf("authkv: %w: the record that authenticates the others is missing", kv.ErrForged)
	}
	r := readHead(b)
	fits, err := k.Check(r.signed(), b[headSize:])
	if err != nil {
		return root{}, fmt.Errorf("authkv: authenticate the state: %w", err)
	}
	if !fits {
		return root{}, fmt.Errorf("authkv: %w", ErrOtherKey)
	}
	return r, nil
}
