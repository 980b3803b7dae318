package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// signerOf finds an identity key: the newest version of a key pair that signs.
func signerOf(store keystore.Store, label, next string) (crypto.Signer, error) {
	ring, err := store.Lookup(label)
	if err != nil {
		return nil, missing(err, next)
	}
	signer, ok := ring[0].Key.(crypto.Signer)
	if !ok {
		return nil, usagef("key %q is for %v, and does not sign", label, ring[0].Key.Algorithm())
	}
	if slices.Contains(pssAlgorithms(), ring[0].Key.Algorithm()) {
		return nil, usagef("key %q is for %v, which only TLS uses: make one with --algorithm rsa2048-sign or ecdsa-p256", label, ring[0].Key.Algorithm())
	}
	return signer, nil
}

// keyEntity is an entity that proves itself with a key that the peer knows. No id
// means one that is made of the key.
func keyEntity(identity, keyID string, signer crypto.Signer) (msl.LocalEntity, error) {
	if keyID == "" {
		var err error
		if keyID, err = keyIDOf(signer.Public()); err != nil {
			return nil, err
		}
	}
	switch signer.Public().(type) {
	case *rsa.PublicKey:
		return &entityauth.RSAEntity{Identity: identity, KeyID: keyID, Key: signer}, nil
	case *ecdsa.PublicKey:
		return &entityauth.ECCEntity{Identity: identity, KeyID: keyID, Key: signer}, nil
	}
	return nil, usagef("a %T is not an RSA or elliptic curve key", signer.Public())
}

// certified is an entity that proves itself with a certificate, the first one in
// a file. Its subject is the identity.
func certified(path string, signer crypto.Signer) (entity msl.LocalEntity, identity string, err error) {
	all, err := readCertificates("certificate", path)
	if err != nil {
		return nil, "", err
	}
	if identity, err = entityauth.DistinguishedName(all[0].RawSubject); err != nil {
		return nil, "", usagef("certificate: %s: %w", path, err)
	}
	if !samePublic(all[0], signer) {
		return nil, "", usagef("certificate: %s is not for the configured key", path)
	}
	return &entityauth.X509Entity{Certificate: all[0], Key: signer}, identity, nil
}

func samePublic(certificate *x509.Certificate, signer crypto.Signer) bool {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(signer.Public())
}

// ownEntity is the server's identity: pre-shared keys, a certificate, or the key
// itself.
func (c *config) ownEntity(store keystore.Store) (msl.LocalEntity, error) {
	if c.Server.PSKKeys != "" && (c.Server.Key != "" || c.Server.Certificate != "") {
		return nil, usagef("server.psk-keys is set, and server.key or server.certificate too: a server proves itself in only one way")
	}
	if c.Server.PSKKeys != "" {
		set, err := provisionedKeySet(store, c.Server.PSKKeys)
		return &entityauth.PSKEntity{Identity: c.Server.Identity, Keys: set}, err
	}
	label := c.Server.Key
	if label == "" {
		label = c.Keystore.Prefix + "-identity"
	}
	signer, err := signerOf(store, label, makeServerKeys)
	if err != nil {
		return nil, err
	}
	if c.Server.Certificate == "" {
		return keyEntity(c.Server.Identity, c.Server.KeyID, signer)
	}
	entity, identity, err := certified(c.Server.Certificate, signer)
	c.Server.Identity = identity
	return entity, err
}

// provisionedKeySet is a pre-shared key set of the key store: keys whose labels
// begin with prefix. A TPM has no wrapping key: it unwraps nothing into itself.
func provisionedKeySet(store keystore.Store, prefix string) (*entityauth.KeySet, error) {
	next := "import it with msl-hsm key import " + prefix + " --set psk --file FILE"
	_, inTPM := store.(*tpm.Store)
	if inTPM {
		next = "get it with msl-hsm tpm storage and msl-hsm tpm import-psk"
	}
	find := func(use string) (keystore.Key, error) {
		ring, err := store.Lookup(prefix + use)
		if err != nil {
			return nil, missing(err, next)
		}
		return ring[0].Key, nil
	}
	encryption, err := find("-encryption")
	if err != nil {
		return nil, err
	}
	mac, err := find("-mac")
	if err != nil {
		return nil, err
	}
	wrapping, err := find("-wrapping")
	if err != nil && !(inTPM && errors.Is(err, keystore.ErrNotFound)) {
		return nil, err
	}
	c, okC := encryption.(keystore.Cipher)
	m, okM := mac.(keystore.MAC)
	if !okC || !okM {
		return nil, fmt.Errorf("keys %q and %q: %w", prefix+"-encryption", prefix+"-mac", keystore.ErrWrongKey)
	}
	return entityauth.NewKeySet(c, m, wrapping), nil
}
