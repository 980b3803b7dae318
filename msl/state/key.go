package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Key authenticates a state that others can write. Both methods are safe for concurrent use.
//
//	Tag(data []byte) (tag []byte, err error)
//	Check(data, tag []byte) (fits bool, err error)
type Key = authkv.Key

// KeyOf returns the key of a store with that label, whose algorithm must make it a MAC.
// Its newest version makes tags, and each version checks its own. Versions that another
// process made are looked up when they are first encountered, see [keystore.Changing].
// What a version made that is gone does not fit. The errors of both methods are never
// [keystore.ErrNotFound], which would say that there is no such record.
// The authenticated data begins with "msl-hsm state root", so that the key may be shared
// with a use whose data never does.
func KeyOf(store keystore.Store, label string) (Key, error) {
	k := &versions{store: store, label: label}
	return k, k.look()
}

// versions are the versions of a key, newest first.
type versions struct {
	store keystore.Store
	label string

	mu  sync.Mutex
	all []keystore.Version
}

// search looks for versions that another process made. Anyone may have written a tag, but
// whoever can write one can also stop the service with a wrong one.
func (k *versions) search() error {
	if changing, ok := k.store.(keystore.Changing); ok {
		if err := changing.Refresh(k.label); err != nil {
			return err
		}
	}
	return k.look()
}

func (k *versions) look() error {
	all, err := k.store.Lookup(k.label)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = all
	return nil
}

// version returns a version, or the newest if number is 0.
func (k *versions) version(number uint32) (mac keystore.MAC, found bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.all, func(v keystore.Version) bool { return number == 0 || v.Number == number })
	if i < 0 {
		return nil, false, nil
	}
	mac, err = keystore.As[keystore.MAC](k.label, k.all[i])
	return mac, err == nil, err
}

// Tag implements [Key]: the number of the version, in 4 bytes, before its MAC.
func (k *versions) Tag(data []byte) ([]byte, error) {
	err := k.look() // in case the store knows newer ones
	if err != nil {
		return nil, ofKey(err)
	}
	tag, err := k.tag(data)
	if errors.Is(err, keystore.ErrNotFound) { // another process destroyed that version
		if err = k.search(); err == nil {
			tag, err = k.tag(data)
		}
	}
	return tag, ofKey(err)
}

func (k *versions) tag(data []byte) ([]byte, error) {
	k.mu.Lock()
	number := k.all[0].Number
	k.mu.Unlock()
	mac, _, err := k.version(number)
	if err != nil {
		return nil, err
	}
	sum, err := mac.Sum(data)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, number), sum...), nil
}

// Check implements [Key].
func (k *versions) Check(data, tag []byte) (bool, error) {
	if len(tag) < 4 {
		return false, nil
	}
	number := binary.BigEndian.Uint32(tag)
	mac, found, err := k.version(number)
	if err == nil && !found && number != 0 {
		if err = k.search(); err == nil {
			mac, found, err = k.version(number)
		}
	}
	if err != nil || !found || number == 0 {
		return false, ofKey(err)
	}
	_, err = keystore.Verify(mac, nil, data, tag[4:])
	switch {
	case errors.Is(err, keystore.ErrBadData), errors.Is(err, keystore.ErrBadTag):
		return false, nil
	case errors.Is(err, keystore.ErrNotFound): // another process destroyed that version
		return false, ofKey(k.search())
	}
	return err == nil, err
}

// ofKey returns an error about the key, of which nothing is left, in a form that does not say
// that there is no such record.
func ofKey(err error) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("state: the key that authenticates it is gone: %v: %w", err, keystore.ErrUnavailable)
	}
	return err
}
