package authkv

import (
	"encoding/binary"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Key makes and checks tags. Both methods may be slow, or fail for a while.
type Key interface {
	// Tag returns a tag over data. It may say which version of the key made it.
	Tag(data []byte) ([]byte, error)
	// Check reports whether a tag is one over data. An error says that it could not find
	// out.
	Check(data, tag []byte) (bool, error)
}

// rootKey is a key in the settings.
const rootKey = "root"

// A root says what is in a store.
type root struct {
	changes uint64 // so far
	sum     sum
}

// signed returns what the tag is over.
func (r root) signed() []byte {
	b := append([]byte("msl-hsm state root 1\x00"), r.sum.encode()...)
	return binary.BigEndian.AppendUint64(b, r.changes)
}

// encode returns the record.
func (r root) encode(k Key) ([]byte, error) {
	tag, err := k.Tag(r.signed())
	if err != nil {
		return nil, fmt.Errorf("authkv: authenticate the state: %w", err)
	}
	b := binary.BigEndian.AppendUint64(nil, r.changes)
	return append(append(b, r.sum.encode()...), tag...), nil
}

// readRoot returns the root in a store, whose tag fits.
func readRoot(r kv.Reader, k Key) (root, error) {
	b, err := r.Get(kv.Settings, []byte(rootKey))
	if err != nil {
		return root{}, err
	}
	return decodeRoot(b, k)
}

func decodeRoot(b []byte, k Key) (root, error) {
	if len(b) < 8+sumSize {
		return root{}, fmt.Errorf("authkv: %w: the record that authenticates the others is missing", kv.ErrForged)
	}
	r := root{binary.BigEndian.Uint64(b), decodeSum(b[8:])}
	fits, err := k.Check(r.signed(), b[8+sumSize:])
	if err != nil {
		return root{}, fmt.Errorf("authkv: authenticate the state: %w", err)
	}
	if !fits {
		return root{}, fmt.Errorf("authkv: %w: the record that authenticates the others was not made with the key of these servers", kv.ErrForged)
	}
	return r, nil
}
