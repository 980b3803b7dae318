package entityauth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/keycache"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A KeySet is a pre-shared key set: 16 bytes of AES, 32 of HMAC-SHA256, and a
// wrapping key for key exchange, which may be nil. A server's wrapping key is a
// keystore.Wrapper, a device's a keystore.Unwrapper.
type KeySet struct {
	Encryption keystore.Cipher
	MAC        keystore.MAC
	Wrapping   keystore.Key

	references atomic.Int32
}

// Acquire adds a user of the keys. It fails once they are closed.
func (k *KeySet) Acquire() bool {
	for {
		n := k.references.Load()
		if n <= 0 {
			return false
		}
		if k.references.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release lets go of the keys; the last to do so closes them.
func (k *KeySet) Release() {
	if k.references.Add(-1) != 0 {
		return
	}
	k.Encryption.Close()
	k.MAC.Close()
	if k.Wrapping != nil {
		k.Wrapping.Close()
	}
}

// PSK is the scheme of pre-shared keys (MSL wiki, "Pre-shared Keys").
type PSK struct {
	// Identity and Keys are our own.
	Identity string
	Keys     *KeySet

	// Directory and Store are for peers: the key sets of the directory are
	// sealed by the store.
	Directory msl.Directory
	Store     keystore.Store
	// Remember is how many key sets stay open between messages; zero means
	// 1000.
	Remember int

	once  sync.Once
	cache *keycache.Cache[string, *KeySet]
}

// Scheme returns PSK.
func (*PSK) Scheme() string { return "PSK" }

// Encrypts reports true.
func (*PSK) Encrypts() bool { return true }

// Authenticates reports true.
func (*PSK) Authenticates() bool { return true }

// Local protects with our own key set.
func (p *PSK) Local(context.Context) (msl.Local, error) {
	if p.Keys == nil {
		return msl.Local{}, msl.Failure(msl.ErrEntityNotFound, "own pre-shared keys", nil)
	}
	return msl.Local{
		Identity:  p.Identity,
		AuthData:  identityData(p.Identity),
		Protector: msl.SymmetricKey{KeyID: p.Identity, Encryption: p.Keys.Encryption, MAC: p.Keys.MAC},
	}, nil
}

// Open finds the key set of a peer. A revoked entity is 4025, one of another
// scheme 4006, an unknown one 4005.
func (p *PSK) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, err := member(authdata, "identity")
	if err != nil {
		return msl.Sender{}, nil, err
	}
	entity, err := lookUp(ctx, p.Directory, identity, p.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	keys, err := p.open(entity)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	return msl.Sender{
		Identity:      identity,
		Opener:        msl.SymmetricKey{KeyID: identity, Encryption: keys.Encryption, MAC: keys.MAC},
		Encrypted:     true,
		Authenticated: true,
	}, keys.Release, nil
}

// KeysOf opens the key set of a peer for key exchange, whatever scheme the peer
// authenticates itself with. A peer without one is 4005. The caller releases the
// keys.
func (p *PSK) KeysOf(ctx context.Context, identity string) (*KeySet, error) {
	entity, err := lookUp(ctx, p.Directory, identity, "")
	if err != nil {
		return nil, err
	}
	return p.open(entity)
}

// open returns the keys of an entity, remembered or unsealed.
func (p *PSK) open(entity *msl.Entity) (*KeySet, error) {
	if entity == nil || entity.PSK == nil {
		return nil, msl.Failure(msl.ErrEntityNotFound, "pre-shared keys", nil)
	}
	p.once.Do(func() {
		size := p.Remember
		if size == 0 {
			size = 1000
		}
		p.cache = keycache.New[string, *KeySet](size, nil)
	})
	name := entity.Identity + "\x00" + string(entity.PSK.MAC) // another key set is another entry
	if keys, ok := p.cache.Get(name); ok {
		return keys, nil
	}
	keys, err := unsealKeySet(p.Store, entity.Identity, entity.PSK)
	if err != nil {
		return nil, msl.Failure(msl.ErrInternalException, "unseal pre-shared keys", err)
	}
	p.cache.Put(name, keys)
	return keys, nil
}

// Close forgets the key sets that are open.
func (p *PSK) Close() error {
	if p.cache != nil {
		p.cache.Close()
	}
	return nil
}

// NewKeySet takes over the keys of a key set. wrapping may be nil.
func NewKeySet(encryption keystore.Cipher, mac keystore.MAC, wrapping keystore.Key) *KeySet {
	k := &KeySet{Encryption: encryption, MAC: mac, Wrapping: wrapping}
	k.references.Store(1)
	return k
}

func unsealKeySet(store keystore.Store, identity string, sealed *msl.SealedPSK) (*KeySet, error) {
	var keys []keystore.Key
	unseal := func(a keystore.Algorithm, use string, blob []byte) error {
		k, err := store.Unseal(a, blob, msl.PSKContext(use, identity))
		if err == nil {
			keys = append(keys, k)
		}
		return err
	}
	err := unseal(keystore.AES128CBC, msl.PSKEncryption, sealed.Encryption)
	if err == nil {
		err = unseal(keystore.HMACSHA256, msl.PSKMAC, sealed.MAC)
	}
	if err == nil {
		err = unseal(keystore.AESWrap128, msl.PSKWrapping, sealed.Wrapping)
	}
	if err != nil {
		for _, k := range keys {
			k.Close()
		}
		return nil, err
	}
	cipher, okC := keys[0].(keystore.Cipher)
	mac, okM := keys[1].(keystore.MAC)
	if !okC || !okM {
		return nil, keystore.ErrWrongKey
	}
	return NewKeySet(cipher, mac, keys[2]), nil
}

// identityData is the authdata of schemes that give an identity alone.
func identityData(identity string) []byte {
	e := wire.NewEncoder(64 + len(identity))
	e.Begin()
	e.String("identity", identity)
	e.End()
	return e.Encoded()
}

// member reads a string out of an authdata object.
func member(authdata []byte, name string) (string, error) {
	o, err := wire.Parse(authdata, wire.Limits{})
	if err == nil {
		var s string
		if s, err = o.String(name); err == nil {
			return s, nil
		}
	}
	return "", msl.Failure(msl.ErrMSLParseError, "entity authentication data", err)
}

// lookUp finds an entity that may use scheme, or nil; an empty scheme is any. The
// checks come in the protocol's order: revocation, then permission.
func lookUp(ctx context.Context, d msl.Directory, identity, scheme string) (*msl.Entity, error) {
	if d == nil {
		return nil, nil
	}
	entity, err := d.Entity(ctx, identity)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, msl.Failure(msl.ErrInternalException, "entity directory", err)
	case entity.Revoked:
		return nil, msl.Failure(msl.ErrEntityRevoked, scheme, nil)
	case scheme != "" && entity.Scheme != scheme:
		return nil, msl.Failure(msl.ErrIncorrectEntityAuthData, scheme, nil)
	}
	return entity, nil
}
