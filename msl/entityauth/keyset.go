package entityauth

import (
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/keycache"
)

// A KeySet is a symmetric key set: 16 bytes for AES, 32 for HMAC-SHA256, separate or as a
// block (keystore.HMACBlock), and a wrapping key for key exchange, which may be nil. A
// server's wrapping key is a keystore.Wrapper, a device's a keystore.Unwrapper.
type KeySet struct {
	Encryption keystore.Cipher
	MAC        keystore.MAC
	Wrapping   keystore.Key

	references keycache.Count
}

// NewKeySet takes ownership of the keys of a key set. wrapping may be nil.
func NewKeySet(encryption keystore.Cipher, mac keystore.MAC, wrapping keystore.Key) *KeySet {
	k := &KeySet{Encryption: encryption, MAC: mac, Wrapping: wrapping}
	k.references.Start()
	return k
}

// Acquire adds a user of the keys. It fails once they are closed.
func (k *KeySet) Acquire() bool { return k.references.Acquire() }

// Release drops a reference to the keys; dropping the last one closes them.
func (k *KeySet) Release() {
	if !k.references.Drop() {
		return
	}
	k.Encryption.Close()
	k.MAC.Close()
	if k.Wrapping != nil {
		k.Wrapping.Close()
	}
}

// keySets remembers the key sets of the most recently authenticated peers.
type keySets struct {
	once  sync.Once
	cache *keycache.Cache[string, *KeySet]
}

// defaultKeySets is how many are remembered by default.
const defaultKeySets = 1000

func (s *keySets) init(size int) {
	s.once.Do(func() {
		if size == 0 {
			size = defaultKeySets
		}
		s.cache = keycache.New[string, *KeySet](size, nil)
	})
}

// A memory remembers a key set once its peer is authenticated, since anyone may have
// named it, and forgets it once its keys are gone.
type memory struct{ proven, gone func() }

// open returns the remembered key set of that name, or the result of create. The caller
// releases it.
func (s *keySets) open(size int, name string, create func() (*KeySet, error)) (keys *KeySet, m memory, err error) {
	s.init(size)
	keys, ok := s.cache.Get(name)
	if !ok {
		if keys, err = create(); err != nil {
			return nil, m, err
		}
	}
	return keys, memory{func() { s.cache.Put(name, keys) }, func() { s.cache.Delete(name) }}, nil
}

// sender returns a peer that has the keys, and the function that releases them.
func (k *KeySet) sender(identity string, m memory) (msl.Sender, func(), error) {
	return msl.Sender{
		Identity:      identity,
		Opener:        msl.SymmetricKey{KeyID: identity, Encryption: k.Encryption, MAC: k.MAC},
		Encrypted:     true,
		Authenticated: true,
		Proven:        m.proven,
		Gone:          m.gone,
	}, k.Release, nil
}

func (s *keySets) close() {
	s.init(0)
	s.cache.Close()
}

// newKeySet makes a key set of two or three keys, and closes them if they are unsuitable.
func newKeySet(keys ...keystore.Key) (*KeySet, error) {
	cipher, okC := keys[0].(keystore.Cipher)
	mac, okM := keys[1].(keystore.MAC)
	if !okC || !okM {
		closeKeys(keys)
		return nil, keystore.ErrWrongKey
	}
	if len(keys) == 2 {
		return NewKeySet(cipher, mac, nil), nil
	}
	return NewKeySet(cipher, mac, keys[2]), nil
}

func closeKeys(keys []keystore.Key) {
	for _, k := range keys {
		k.Close()
	}
}
