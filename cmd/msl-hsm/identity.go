package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// signerOf finds an identity key: the newest version of a key pair that signs.
func signerOf(store keystore.Store, label, next string) (crypto.Signer, error) {
	k, err := signingKey(store, label, next)
	if err != nil {
		return nil, err
	}
	if slices.Contains(pssAlgorithms(), k.Algorithm()) {
		return nil, usagef("key %q is for %v, which only TLS uses: make one with --algorithm rsa2048-sign or ecdsa-p256", label, k.Algorithm())
	}
	return k, nil
}

// A signer is a key that signs.
type signer interface {
	keystore.Key
	crypto.Signer
}

// signingKey finds the newest version of a key pair that signs.
func signingKey(store keystore.Store, label, next string) (signer, error) {
	k, err := keystore.Find[keystore.Key](store, label)
	if err != nil {
		return nil, missing(err, next)
	}
	s, ok := k.(signer)
	if !ok {
		return nil, usagef("key %q is for %v, and does not sign", label, k.Algorithm())
	}
	return s, nil
}

// keyEntity is an entity that proves itself with a key that the peer knows. No id
// means one that is made of the key.
func keyEntity(identity, keyID string, signer crypto.Signer) (msl.EntityScheme, error) {
	if keyID == "" {
		var err error
		if keyID, err = keystore.KeyID(signer.Public()); err != nil {
			return nil, err
		}
	}
	switch signer.Public().(type) {
	case *rsa.PublicKey:
		return &entityauth.RSA{Identity: identity, KeyID: keyID, Key: signer}, nil
	case *ecdsa.PublicKey:
		return &entityauth.ECC{Identity: identity, KeyID: keyID, Key: signer}, nil
	}
	return nil, usagef("a %T is not an RSA or elliptic curve key", signer.Public())
}

// certified is an entity that proves itself with a certificate, the first one in
// a file. Its subject is the identity.
func certified(path string, signer crypto.Signer) (entity msl.EntityScheme, identity string, err error) {
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
	return &entityauth.X509{Certificate: all[0], Key: signer}, identity, nil
}

func samePublic(certificate *x509.Certificate, signer crypto.Signer) bool {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(signer.Public())
}

// ownEntity is the server's identity: pre-shared keys, a certificate, or the key
// itself.
func ownEntity(c *config, store keystore.Store) (msl.EntityScheme, error) {
	if c.Server.PSKKeys != "" && (c.Server.Key != "" || c.Server.Certificate != "") {
		return nil, usagef("server.psk-keys is set, and server.key or server.certificate too: a server proves itself in only one way")
	}
	if c.Server.PSKKeys != "" {
		set, err := provisionedKeySet(store, c.Server.PSKKeys)
		return &entityauth.PSK{Identity: c.Server.Identity, Keys: set}, err
	}
	label := c.Server.Key
	if label == "" {
		label = keystore.RoleIdentity.Label(c.Keystore.Prefix)
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
	encryption, err := keystore.Find[keystore.Cipher](store, keystore.RolePSKEncryption.Label(prefix))
	if err != nil {
		return nil, missing(err, next)
	}
	mac, err := keystore.Find[keystore.MAC](store, keystore.RolePSKMAC.Label(prefix))
	if err != nil {
		return nil, missing(err, next)
	}
	wrapping, err := keystore.Find[keystore.Key](store, keystore.RolePSKWrapping.Label(prefix))
	if err != nil && !(inTPM && errors.Is(err, keystore.ErrNotFound)) {
		return nil, missing(err, next)
	}
	return entityauth.NewKeySet(encryption, mac, wrapping), nil
}
