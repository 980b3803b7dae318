package entityauth

import (
	"context"
	"crypto/aes"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// MGKEntity is an entity whose provisioner derived its keys from the master key of its
// group (MSL wiki, "Model Group Keys").
type MGKEntity struct {
	Identity string
	Keys     *KeySet
}

// Scheme returns MGK.
func (*MGKEntity) Scheme() string { return "MGK" }

// Encrypts reports true.
func (*MGKEntity) Encrypts() bool { return true }

// Authenticates reports true.
func (*MGKEntity) Authenticates() bool { return true }

// Credentials protects with this side's key set.
func (m *MGKEntity) Credentials(context.Context) (msl.Credentials, error) {
	if m.Keys == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrEntityNotFound, "own model group keys", nil)
	}
	return msl.Credentials{
		Identity:  m.Identity,
		AuthData:  encodeStrings("identity", m.Identity),
		Protector: msl.SymmetricKey{KeyID: m.Identity, Encryption: m.Keys.Encryption, MAC: m.Keys.MAC},
	}, nil
}

// A ModelGroup is a group of entities whose keys are derived from one key. Each key, and
// each version of it, needs its own name.
type ModelGroup struct {
	Name string
	Key  keystore.Cipher // the group master key, AES-128
}

// MGK is the scheme of model group keys (MSL wiki, "Model Group Keys"): the keys of an
// entity are derived from its identity under the master key of its group, so that a
// receiver keeps one key for a whole model of devices. Anyone with the group key can
// impersonate every entity in the group.
//
// It has not been verified against another implementation: no public one has the
// scheme. Groups whose master key is for triple DES are not supported.
//
// The derived key bytes pass through the memory of this process, in buffers that
// are wiped; the group key does not.
type MGK struct {
	// Group finds the group of a peer by the peer's identity. An unknown group is
	// keystore.ErrNotFound.
	Group func(ctx context.Context, identity string) (ModelGroup, error)
	// Importer is the store that imports the derived keys of peers.
	Importer keystore.Importer
	// Directory may revoke peers, or restrict them to another scheme. They need no entry.
	Directory msl.Directory
	// Remember is how many key sets stay open between messages; zero means
	// 1000.
	Remember int

	sets keySets
}

// Scheme returns MGK.
func (*MGK) Scheme() string { return "MGK" }

// Open derives the key set of a peer. A revoked entity is error 4025, one of another
// scheme 4006, one of an unknown group 4005.
func (m *MGK) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, err := identityOf(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	if _, err := lookUp(ctx, m.Directory, identity, m.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	keys, mem, err := m.keysOf(ctx, identity)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	return keys.sender(identity, mem)
}

// keysOf returns the keys of a peer, remembered or derived, and the memory that remembers
// them.
func (m *MGK) keysOf(ctx context.Context, identity string) (keys *KeySet, mem memory, err error) {
	if m.Group == nil || m.Importer == nil {
		return nil, mem, msl.Failure(msl.ErrEntityNotFound, m.Scheme(), errors.New("no model groups configured"))
	}
	group, err := m.Group(ctx, identity)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, mem, msl.Failure(msl.ErrEntityNotFound, m.Scheme(), err)
	}
	if err != nil {
		return nil, mem, msl.Failure(msl.ErrInternalException, "find model group", err)
	}
	return m.sets.open(m.Remember, group.Name+"\x00"+identity, func() (*KeySet, error) {
		keys, err := m.derive(group, identity)
		if err != nil {
			return nil, msl.Failure(msl.ErrInternalException, "derive model group keys", err)
		}
		return keys, nil
	})
}

// derive imports the derived keys, and wipes them.
func (m *MGK) derive(group ModelGroup, identity string) (*KeySet, error) {
	raw, err := DeriveGroupKeys(group.Key, identity)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	encryption, err := m.Importer.Import(keystore.AES128CBC, raw[:16])
	if err != nil {
		return nil, err
	}
	mac, err := m.Importer.Import(keystore.HMACSHA256, raw[16:])
	if err != nil {
		encryption.Close()
		return nil, err
	}
	return newKeySet(encryption, mac)
}

// Close forgets the open key sets.
func (m *MGK) Close() error {
	m.sets.close()
	return nil
}

// DeriveGroupKeys derives the keys of an entity from the master key of its group: SHA-384
// of the identity, encrypted with AES-128 in ECB mode (MSL wiki, "Model Group Keys"). The
// first 16 bytes are the AES key, the other 32 the HMAC-SHA256 key. The caller must wipe
// them.
func DeriveGroupKeys(group keystore.Cipher, identity string) ([]byte, error) {
	if group == nil || group.Algorithm() != keystore.AES128CBC {
		return nil, fmt.Errorf("entityauth: group master key: %w", keystore.ErrWrongKey)
	}
	digest := sha512.Sum384([]byte(identity))
	// The capacity keeps append from leaving a copy behind.
	keys := make([]byte, 0, sha512.Size384)
	for block := digest[:]; len(block) > 0; block = block[aes.BlockSize:] {
		// One block in CBC mode with an all-zero vector is ECB; what follows it is
		// padding.
		out, err := group.Encrypt(make([]byte, aes.BlockSize), block[:aes.BlockSize])
		if err == nil && len(out) != 2*aes.BlockSize {
			err = keystore.ErrBadData
		}
		if err != nil {
			clear(out)
			clear(keys)
			return nil, fmt.Errorf("entityauth: derive model group keys: %w", err)
		}
		keys = append(keys, out[:aes.BlockSize]...)
		clear(out)
	}
	return keys, nil
}
