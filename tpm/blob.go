package tpm

import (
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Blob is a signing key pair that the caller keeps instead of the state file. It is
// not secret, since only the TPM can decrypt its private area. It has no PIN.
type Blob struct {
	Algorithm keystore.Algorithm `json:"algorithm"`
	Public    []byte             `json:"public"`  // TPMT_PUBLIC
	Private   []byte             `json:"private"` // contents of a TPM2B_PRIVATE
	Parent    []byte             `json:"-"`       // Name of its storage key; empty means that of the store
}

// CreateBlob makes a signing key pair under the persistent storage key with the Name
// parent, or under the store's if parent is empty. A restricted key signs only what the
// TPM itself produces, such as quotes (TPM 2.0 Library, Part 1, clause 25.2).
func (s *Store) CreateBlob(parent []byte, a keystore.Algorithm, restricted bool) (Blob, error) {
	t, err := template(a, made, false)
	if err != nil {
		return Blob{}, err
	}
	if a.Secret() || !t.ObjectAttributes.SignEncrypt {
		return Blob{}, fmt.Errorf("tpm: %v is not a key pair that signs: %w", a, errors.ErrUnsupported)
	}
	if err := s.storage.device.tpm.caps.supports(a); err != nil {
		return Blob{}, err
	}
	t.ObjectAttributes.Restricted = restricted
	var o *object
	err = s.storage.do(func() error {
		root, err := s.storage.rootNamed(parent)
		if err == nil {
			o, err = s.storage.device.tpm.create(root, tpm2.Marshal(t), nil, nil)
		}
		return err
	})
	if err != nil {
		return Blob{}, err
	}
	return Blob{Algorithm: a, Public: o.public, Private: o.private, Parent: parent}, nil
}

// UseBlob lets f use a key by go-tpm commands. It is called inside [Device.Do] or
// [Store.With], with the transport that they pass. Calls may be nested.
func (s *Store) UseBlob(t transport.TPM, b Blob, f func(key tpm2.NamedHandle) error) error {
	if l, ok := t.(*link); !ok || l.resources != s.storage.device.resources {
		return fmt.Errorf("tpm: use a key on another TPM, or after its turn: %w", keystore.ErrWrongKey)
	}
	root, err := s.storage.rootNamed(b.Parent)
	if err != nil {
		return err
	}
	o := newObject(root, b.Public, b.Private)
	if err := s.storage.device.tpm.load(o); err != nil {
		return err
	}
	defer s.storage.device.resources.unload(o)
	return f(o.named())
}

// BlobSigner returns the signer of an unrestricted key: PKCS #1 v1.5 with SHA-256 for
// RSA, and ASN.1 DER for ECDSA. The key is loaded only while it signs.
func (s *Store) BlobSigner(b Blob) (crypto.Signer, error) {
	e, err := inspect(b.Algorithm, b.Public)
	if err != nil {
		return nil, err
	}
	public, err := e.key()
	if err != nil {
		return nil, err
	}
	if public == nil {
		return nil, fmt.Errorf("tpm: %v is not a key pair that signs: %w", b.Algorithm, errors.ErrUnsupported)
	}
	return blobSigner{s.storage, b, public}, nil
}

type blobSigner struct {
	storage *storage
	blob    Blob
	public  crypto.PublicKey
}

// Public returns the public key.
func (b blobSigner) Public() crypto.PublicKey { return b.public }

// Sign signs a digest, like the provisioned key pairs of a Store.
func (b blobSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	var o *object
	err := b.storage.do(func() error {
		root, err := b.storage.rootNamed(b.blob.Parent)
		o = newObject(root, b.blob.Public, b.blob.Private)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer b.storage.device.release(o)
	k := signer{&key{storage: b.storage, algorithm: b.blob.Algorithm, object: o, locked: true, public: b.public}}
	return k.Sign(rand, digest, opts)
}
