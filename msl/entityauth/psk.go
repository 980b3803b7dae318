package entityauth

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// PSKEntity is an entity with pre-shared keys (MSL wiki, "Pre-shared Keys").
type PSKEntity struct {
	Identity string
	Keys     *KeySet
}

// Scheme returns PSK.
func (*PSKEntity) Scheme() string { return "PSK" }

// Encrypts reports true.
func (*PSKEntity) Encrypts() bool { return true }

// Authenticates reports true.
func (*PSKEntity) Authenticates() bool { return true }

// Credentials protects with this side's key set.
func (p *PSKEntity) Credentials(context.Context) (msl.Credentials, error) {
	if p.Keys == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrEntityNotFound, "own pre-shared keys", nil)
	}
	return msl.Credentials{
		Identity:  p.Identity,
		AuthData:  encodeStrings("identity", p.Identity),
		Protector: msl.SymmetricKey{KeyID: p.Identity, Encryption: p.Keys.Encryption, MAC: p.Keys.MAC},
	}, nil
}

// PSK is the scheme of pre-shared keys (MSL wiki, "Pre-shared Keys"). The store has
// sealed the key sets in the directory.
type PSK struct {
	Directory msl.Directory
	Store     keystore.Store
	// Remember is how many key sets stay open between messages; zero means
	// 1000.
	Remember int

	sets keySets
}

// Scheme returns PSK.
func (*PSK) Scheme() string { return "PSK" }

// Open finds the key set of a peer. A revoked entity is error 4025, one of another scheme
// 4006, an unknown one 4005. If no key here opens the entity's keys, that is an internal
// error that names the entity: it is not the device's fault.
func (p *PSK) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, err := identityOf(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	entity, err := lookUp(ctx, p.Directory, identity, p.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	keys, memory, err := p.open(entity)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	return keys.sender(identity, memory)
}

// KeysOf opens the key set of a peer for key exchange, whatever scheme the peer
// authenticates itself with. A peer without one is error 4005. The caller releases the
// keys, which are not remembered: the peer may have proven nothing.
func (p *PSK) KeysOf(ctx context.Context, identity string) (*KeySet, error) {
	entity, err := lookUp(ctx, p.Directory, identity, "")
	if err != nil {
		return nil, err
	}
	keys, _, err := p.open(entity)
	return keys, err
}

// open returns the keys of an entity, remembered or unsealed, and the memory that
// remembers them.
func (p *PSK) open(entity *msl.Entity) (keys *KeySet, m memory, err error) {
	if entity == nil || entity.PSK == nil {
		return nil, m, msl.Failure(msl.ErrEntityNotFound, "pre-shared keys", nil)
	}
	name := entity.Identity + "\x00" + string(entity.PSK.MAC) // another key set is another entry
	return p.sets.open(p.Remember, name, func() (*KeySet, error) {
		keys, err := unsealKeySet(p.Store, entity.Identity, entity.PSK)
		if errors.Is(err, keystore.ErrForeign) {
			err = fmt.Errorf("no key here can unseal the keys of entity %q: remove the entity, and add it again with new ones: %w", entity.Identity, err)
		}
		if err != nil {
			return nil, msl.Failure(msl.ErrInternalException, "unseal pre-shared keys", err)
		}
		return keys, nil
	})
}

// Close forgets the open key sets.
func (p *PSK) Close() error {
	p.sets.close()
	return nil
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
	mac, err := sealed.MACAlgorithm()
	if err == nil {
		err = unseal(keystore.AES128CBC, msl.PSKEncryption, sealed.Encryption)
	}
	if err == nil {
		err = unseal(mac, msl.PSKMAC, sealed.MAC)
	}
	if err == nil {
		err = unseal(keystore.AESWrap128, msl.PSKWrapping, sealed.Wrapping)
	}
	if err != nil {
		closeKeys(keys)
		return nil, err
	}
	return newKeySet(keys...)
}
