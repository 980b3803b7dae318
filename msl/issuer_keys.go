package msl

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// ErrVersionsApart says that two keys that belong together have no version in common: a
// rotation was interrupted.
var ErrVersionsApart = errors.New("msl: the keys have no version in common")

// FindIssuer returns the issuer whose keys the store holds under the labels of the roles
// [keystore.RoleIssuerEncryption] and [keystore.RoleIssuerMAC], with every version that
// both have. Its lifetimes are the defaults. A missing key, including a sealing key, is
// [keystore.ErrNotFound]; keys without a common version are [ErrVersionsApart].
func FindIssuer(store keystore.Store, name, prefix string) (*Issuer, error) {
	for _, role := range keystore.SealingRoles() {
		if _, err := store.Lookup(role.Label(prefix)); err != nil {
			return nil, err
		}
	}
	versions, err := FindVersions(store, keystore.RoleIssuerEncryption.Label(prefix), keystore.RoleIssuerMAC.Label(prefix))
	if err != nil {
		return nil, err
	}
	return &Issuer{Name: name, Store: store, Versions: versions}, nil
}

// FindServiceTokenKeys returns the keys of every service token, from the labels of the
// roles [keystore.RoleServiceEncryption] and [keystore.RoleServiceMAC]. name is written
// into the tokens. The errors are those of [FindIssuer].
func FindServiceTokenKeys(store keystore.Store, name, prefix string) (ServiceTokenKeys, error) {
	versions, err := FindVersions(store, keystore.RoleServiceEncryption.Label(prefix), keystore.RoleServiceMAC.Label(prefix))
	if err != nil {
		return nil, err
	}
	return versions.ServiceTokenKeys(name), nil
}

// findKeyRing pairs the versions of two keys, newest first. Versions that only one of
// them has, left by an interrupted rotation, are omitted.
func findKeyRing(store keystore.Store, encryption, mac string) (ring []IssuerKeys, err error) {
	ciphers, err := store.Lookup(encryption)
	if err != nil {
		return nil, err
	}
	macs, err := store.Lookup(mac)
	if err != nil {
		return nil, err
	}
	for _, c := range ciphers {
		for _, m := range macs {
			if c.Number != m.Number {
				continue
			}
			cipher, errC := keystore.As[keystore.Cipher](encryption, c)
			tag, errM := keystore.As[keystore.MAC](mac, m)
			if err := errors.Join(errC, errM); err != nil {
				return nil, err
			}
			ring = append(ring, IssuerKeys{Version: c.Number, Encryption: cipher, MAC: tag})
		}
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("%w: %q and %q", ErrVersionsApart, encryption, mac)
	}
	return ring, nil
}

// verify finds the keys under which a token was made. data is its encrypted part, whose
// envelope hints at the key version before anything is verified. That version is tried
// first and then the others, since another issuer with the same keys may number them
// differently. If the version is newer than all known ones, or was destroyed since, the
// keys are looked up again. verify returns the matching version too. No match is
// errSignature.
func (i *Issuer) verify(t signedToken, data []byte) (SymmetricKey, uint32, error) {
	if i.Versions == nil {
		return i.verifyKnown(t, data)
	}
	before := i.Versions.now.Load()
	key, version, err := i.verifyKnown(t, data)
	if !outdated(err) {
		return key, version, err
	}
	switch found, failed := i.Versions.again(before, err, versionOf(data)); {
	case failed != nil:
		return key, 0, fail(ErrInternalException, "look for newer keys", failed)
	case !found:
		return key, version, err
	}
	return i.verifyKnown(t, data)
}
