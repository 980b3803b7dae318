package msl

import (
	"context"
	"crypto"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Entity is the directory's record of an entity that may send messages.
type Entity struct {
	Identity  string
	Scheme    string // the only entity scheme it may use
	Revoked   bool
	KeyID     string           // RSA, ECC: the id of its public key
	PublicKey crypto.PublicKey // RSA, ECC
	PSK       *SealedPSK       // PSK, PSK_PROFILE

	KeyExchanges []string // key exchange schemes it may use; nil means all
	UserSchemes  []string // user schemes it may use; nil means all
}

// A SealedPSK is a pre-shared key set sealed by its store and bound to the identity
// ([PSKContext]).
type SealedPSK struct {
	Encryption, MAC, Wrapping []byte
}

// MACAlgorithm returns the algorithm that the MAC key was sealed for:
// keystore.HMACSHA256Block, or keystore.HMACSHA256 if an earlier version sealed it. In
// the earlier form, if the wrapping key is derived from the other two, anyone with the
// store's PIN and the sealed keys can compute it; seal the keys again from their bytes.
// Any other algorithm is keystore.ErrForeign.
func (p *SealedPSK) MACAlgorithm() (keystore.Algorithm, error) {
	sealed, err := keystore.ParseSealed(p.MAC)
	if err != nil {
		return 0, err
	}
	switch sealed.Algorithm {
	case keystore.HMACSHA256, keystore.HMACSHA256Block:
		return sealed.Algorithm, nil
	}
	return 0, fmt.Errorf("msl: the MAC key was sealed as %v: %w", sealed.Algorithm, keystore.ErrForeign)
}

// The uses of the keys of a pre-shared key set.
const (
	PSKEncryption = "encryption"
	PSKMAC        = "mac"
	PSKWrapping   = "wrapping"
)

// PSKContext binds a sealed key to its use in the key set of one identity.
func PSKContext(use, identity string) []byte {
	return append(append([]byte("msl psk\x00"+use), 0), identity...)
}

// A Directory finds entities by name. Names are passed as they were sent, and compared in
// the form of [CanonicalName]. An unknown entity is keystore.ErrNotFound.
type Directory interface {
	Entity(ctx context.Context, identity string) (*Entity, error)
}

// A StaticDirectory is a fixed set of entities, by identity.
type StaticDirectory map[string]*Entity

// Entity implements [Directory].
func (d StaticDirectory) Entity(_ context.Context, identity string) (*Entity, error) {
	if e := d[identity]; e != nil {
		return e, nil
	}
	for name, e := range d {
		if e != nil && sameName(name, identity) {
			return e, nil
		}
	}
	return nil, fmt.Errorf("msl: entity %q: %w", identity, keystore.ErrNotFound)
}
