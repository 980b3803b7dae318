package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// SignerOf finds an identity key: the newest version of a signing key pair.
func SignerOf(store keystore.Store, label, next string) (crypto.Signer, error) {
	k, err := SigningKey(store, label, next)
	if err != nil {
		return nil, err
	}
	if k.Algorithm().PSS() {
		return nil, exit.Usagef("key %q is for %v, which only TLS uses: make one with --algorithm rsa2048-sign or ecdsa-p256", label, k.Algorithm())
	}
	return k, nil
}

// A Signer is a key that signs.
type Signer interface {
	keystore.Key
	crypto.Signer
}

// SigningKey finds the newest version of a signing key pair.
func SigningKey(store keystore.Store, label, next string) (Signer, error) {
	k, err := keystore.Find[keystore.Key](store, label)
	if err != nil {
		return nil, Missing(err, next)
	}
	s, ok := k.(Signer)
	if !ok {
		return nil, exit.Usagef("key %q is for %v, and does not sign", label, k.Algorithm())
	}
	return s, nil
}

// KeyEntity returns an entity that authenticates with a key known to the peer. If keyID
// is empty, it is derived from the key.
func KeyEntity(identity, keyID string, signer crypto.Signer) (msl.LocalEntity, error) {
	if keyID == "" {
		var err error
		if keyID, err = keystore.KeyID(signer.Public()); err != nil {
			return nil, err
		}
	}
	switch signer.Public().(type) {
	case *rsa.PublicKey:
		return &entityauth.RSAEntity{Identity: identity, KeyID: keyID, Key: signer}, nil
	case *ecdsa.PublicKey:
		return &entityauth.ECCEntity{Identity: identity, KeyID: keyID, Key: signer}, nil
	}
	return nil, exit.Usagef("a %T is not an RSA or elliptic curve key", signer.Public())
}

// Certified returns an entity that authenticates with the first certificate in a file.
// The certificate's subject is the identity.
func Certified(path string, signer crypto.Signer) (entity msl.LocalEntity, identity string, err error) {
	all, err := ReadCertificates("certificate", path)
	if err != nil {
		return nil, "", err
	}
	if identity, err = entityauth.DistinguishedName(all[0].RawSubject); err != nil {
		return nil, "", exit.Usagef("certificate: %s: %w", path, err)
	}
	if !keystore.SamePublic(all[0].PublicKey, signer.Public()) {
		return nil, "", exit.Usagef("certificate: %s is not for the configured key", path)
	}
	return &entityauth.X509Entity{Certificate: all[0], Key: signer}, identity, nil
}

// ProvisionedKeySet returns a pre-shared key set of the key store: the keys whose labels
// begin with prefix. A TPM has no wrapping key, since it cannot unwrap keys into itself.
func ProvisionedKeySet(store keystore.Store, prefix string) (*entityauth.KeySet, error) {
	next := ImportKeys(prefix, "psk")
	_, inTPM := store.(*tpm.Store)
	if inTPM {
		next = "get it with msl-hsm tpm storage and msl-hsm tpm import-psk"
	}
	encryption, err := keystore.Find[keystore.Cipher](store, keystore.RolePSKEncryption.Label(prefix))
	if err != nil {
		return nil, Missing(err, next)
	}
	mac, err := keystore.Find[keystore.MAC](store, keystore.RolePSKMAC.Label(prefix))
	if err != nil {
		return nil, Missing(err, next)
	}
	wrapping, err := keystore.Find[keystore.Key](store, keystore.RolePSKWrapping.Label(prefix))
	if err != nil && !(inTPM && errors.Is(err, keystore.ErrNotFound)) {
		return nil, Missing(err, next)
	}
	return entityauth.NewKeySet(encryption, mac, wrapping), nil
}

// SignsMSL reports whether keys of an algorithm make the signatures of MSL and the audit
// log.
func SignsMSL(a keystore.Algorithm) bool {
	return slices.Contains([]keystore.Algorithm{keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.ECDSAP256, keystore.ECDSAP384}, a)
}

// ReadPublicKey reads an RSA or EC public key in the form that key show --public
// prints.
func ReadPublicKey(path string) (crypto.PublicKey, error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("public key: %w; name the file that msl-hsm key show NAME --public printed", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, exit.Usagef("public key: %s has no PEM block PUBLIC KEY; make one with msl-hsm key show NAME --public", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, exit.Usagef("public key: %s is damaged: make it again with msl-hsm key show NAME --public", path)
	}
	switch public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return public, nil
	}
	return nil, exit.Usagef("public key: %s is not an RSA or elliptic curve key: name one that msl-hsm key show NAME --public prints", path)
}
