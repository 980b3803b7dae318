package split

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A Device is a store with provisioned keys.
type Device interface {
	keystore.Store
	keystore.Admin
}

// A Config says how a store names and draws keys. The zero value is one.
type Config struct {
	// SealPrefix is the first part of the labels of the sealing keys, see
	// [keystore.SealingRoles]. The default is [keystore.DefaultPrefix].
	SealPrefix string
	// Rand is the source of session keys and initialization vectors; nil means
	// crypto/rand. The store closes it, if it is an io.Closer.
	Rand io.Reader
}

// A Store has session keys in memory, and all others in a device. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper], [keystore.Admin], [keystore.Changing],
// [keystore.Resealer] and, if the device is one, a [keystore.RandomSource]. It is safe for
// concurrent use.
type Store struct {
	device Device
	memory *soft.Store
	sealer *sealer
	prefix string
}

var (
	_ keystore.Store        = (*Store)(nil)
	_ keystore.Importer     = (*Store)(nil)
	_ keystore.PeerWrapper  = (*Store)(nil)
	_ keystore.Admin        = (*Store)(nil)
	_ keystore.Changing     = (*Store)(nil)
	_ keystore.Resealer     = (*Store)(nil)
	_ keystore.RandomSource = (*Store)(nil)
)

// New makes a Store over a device, which it closes.
func (c Config) New(device Device) *Store {
	s := &Store{device: device, prefix: cmp.Or(c.SealPrefix, keystore.DefaultPrefix)}
	s.sealer = &sealer{device: device, prefix: s.prefix, random: c.Rand, rings: map[string][]sealing{}, chosen: map[string]uint32{}}
	s.memory = soft.Config{SealPrefix: s.prefix, Rand: c.Rand, Others: s.provisioned}.New()
	return s
}

// Provider says where the keys of a Store over a PKCS #11 token are.
func Provider() keystore.Provider {
	return keystore.Provider{Name: "pkcs11-memory", SessionsInProcess: true}
}

// Device returns the store of the provisioned keys.
func (s *Store) Device() keystore.Store { return s.device }

// provisioned says what is wrong with a key that is not in memory: one of the device may
// not leave it.
func (s *Store) provisioned(k keystore.Key) error {
	if own, ok := k.(inDevice); ok && own.in() == s {
		return fmt.Errorf("split: %v key: %w", k.Algorithm(), keystore.ErrLocked)
	}
	if _, err := s.device.Seal(k, nil); err != nil {
		return err
	}
	return fmt.Errorf("split: a session key of the device: %w", keystore.ErrWrongKey)
}

// Generate makes a session key or a session key pair in memory.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) { return s.memory.Generate(a) }

// Import makes a session key in memory from the given bytes. The caller keeps raw and wipes
// it.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	return s.memory.Import(a, raw)
}

// WrapFor wraps a session key under the public key of a peer.
func (s *Store) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	return s.memory.WrapFor(peer, k)
}

// Random fills p with random bytes of the device.
func (s *Store) Random(p []byte) error {
	source, ok := s.device.(keystore.RandomSource)
	if !ok {
		return fmt.Errorf("split: random bytes of the device: %w", errors.ErrUnsupported)
	}
	return source.Random(p)
}

// Live counts the session keys in memory, and the sessions that operations hold in the
// device.
func (s *Store) Live() (objects, sessions int) {
	objects, _ = s.memory.Live()
	if device, ok := s.device.(interface{ Live() (int, int) }); ok {
		more, held := device.Live()
		return objects + more, held
	}
	return objects, 0
}

// Close wipes the session keys, and closes the device.
func (s *Store) Close() error {
	err := s.memory.Close()
	if source, ok := s.sealer.random.(io.Closer); ok {
		err = errors.Join(err, source.Close())
	}
	return errors.Join(err, s.device.Close())
}
