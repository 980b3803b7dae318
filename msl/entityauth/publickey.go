package entityauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// ByKey is an entity that proves its identity with an RSA or elliptic curve key known to
// its peers. The id of the key is [keystore.KeyID], which both sides can compute.
func ByKey(identity string, key crypto.Signer) (msl.LocalEntity, error) {
	id, err := keystore.KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	switch key.Public().(type) {
	case *rsa.PublicKey:
		return &RSAEntity{Identity: identity, KeyID: id, Key: key}, nil
	case *ecdsa.PublicKey:
		return &ECCEntity{Identity: identity, KeyID: id, Key: key}, nil
	}
	return nil, fmt.Errorf("entityauth: a %T is not an RSA or elliptic curve key", key.Public())
}

// Known is the scheme of one peer that proves its identity with an RSA or elliptic curve
// key, like [ByKey].
func Known(identity string, public crypto.PublicKey) (msl.EntityScheme, error) {
	id, err := keystore.KeyID(public)
	if err != nil {
		return nil, err
	}
	peer := &msl.Entity{Identity: identity, KeyID: id, PublicKey: public}
	only := msl.StaticDirectory{identity: peer}
	switch public.(type) {
	case *rsa.PublicKey:
		peer.Scheme = "RSA"
		return &RSA{Directory: only}, nil
	case *ecdsa.PublicKey:
		peer.Scheme = "ECC"
		return &ECC{Directory: only}, nil
	}
	return nil, fmt.Errorf("entityauth: a %T is not an RSA or elliptic curve key", public)
}
