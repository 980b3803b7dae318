package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A tpmVerifier knows the attestation keys of enrolled devices.
type tpmVerifier struct{ authority *authority }

// Certified implements keyx.TPMVerifier.
func (v tpmVerifier) Certified(ctx context.Context, identity string, use keyx.TPMUse, c keyx.TPMCertified, qualifying []byte) error {
	uses := map[keyx.TPMUse]enroll.Use{keyx.TPMStorage: enroll.Storage, keyx.TPMDecrypt: enroll.Decryption}
	name := deviceName(identity)
	err := v.authority.Certified(ctx, name, uses[use], c.Public, c.Attest, c.Signature, qualifying)
	if device, ok := strings.CutSuffix(name, pskSuffix); ok && errors.Is(err, enroll.ErrUnknown) {
		err = v.authority.Certified(ctx, device, uses[use], c.Public, c.Attest, c.Signature, qualifying)
	}
	if err == nil || isAny(err, enroll.ErrUnknown, enroll.ErrState, enroll.ErrMalformed, enroll.ErrKey,
		enroll.ErrAttestation, enroll.ErrSignature, enroll.ErrNonce) {
		return err
	}
	return msl.Failure(msl.ErrInternalException, "find the attestation key", err) // nobody looked at what came
}

// Duplicate implements keyx.TPMVerifier.
func (tpmVerifier) Duplicate(storage []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error) {
	return tpm.Duplicate(storage, a, raw)
}

// EncryptOAEP implements keyx.TPMVerifier.
func (tpmVerifier) EncryptOAEP(public, raw []byte) ([]byte, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	to, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the decryption key is a %T: %w", key, keystore.ErrBadData)
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, to, raw, nil)
}

// Keys of this machine for one key exchange.

// NewParent implements keyx.TPMDevice.
func (m *machine) NewParent() (keyx.TPMParent, error) {
	p, err := m.store.NewImportParent()
	if err != nil {
		return nil, err
	}
	return &exchangeParent{p, m}, nil
}

type exchangeParent struct {
	*tpm.ImportParent
	m *machine
}

func (p *exchangeParent) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return p.m.identity.Certify(p.With, qualifying)
}

// NewDecrypter implements keyx.TPMDevice.
func (m *machine) NewDecrypter() (keyx.TPMDecrypter, error) {
	k, err := m.store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		return nil, err
	}
	d := &exchangeDecrypter{Key: k, m: m}
	err = d.lend(func(t transport.TPM, key tpm2.NamedHandle) error {
		r, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(t)
		if err == nil {
			d.public = r.OutPublic.Bytes()
		}
		return err
	})
	if err != nil {
		k.Close()
		return nil, tpm.CommandError("TPM2_ReadPublic", err)
	}
	return d, nil
}

type exchangeDecrypter struct {
	keystore.Key
	m      *machine
	public []byte
}

func (d *exchangeDecrypter) lend(f func(transport.TPM, tpm2.NamedHandle) error) error {
	return d.m.store.With(d.Key, f)
}

func (d *exchangeDecrypter) Public() []byte { return d.public }

func (d *exchangeDecrypter) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return d.m.identity.Certify(d.lend, qualifying)
}

func (d *exchangeDecrypter) DecryptOAEP(ciphertext []byte) ([]byte, error) {
	return d.Key.(crypto.Decrypter).Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
}

// sessions is where session keys go that this process has seen: into the TPM, if
// it has AES.
func (m *machine) sessions() importing {
	if m.device.Capabilities().EncryptDecrypt {
		return m.store
	}
	return soft.New()
}

// tpmOfferer is the key exchange TPM_IMPORT as a client does it.
func (k exchangeKeys) tpmOfferer() *keyx.TPMOfferer {
	x := &keyx.TPMOfferer{Store: k.store}
	if k.machine != nil {
		x.Device = k.machine
		if !k.machine.device.Capabilities().EncryptDecrypt {
			x.Outside = soft.New()
		}
	}
	return x
}

// machineEntity is this machine as a server enrolled it: by its first key, or by
// the certificate of that key.
func (c *config) machineEntity(m *machine) (msl.LocalEntity, error) {
	name, credentials, err := m.identity.Credentials()
	if err != nil {
		return nil, err
	}
	own := credentials[0]
	if c.Client.EntityScheme != "X509" {
		c.Client.Identity = name
		return keyEntity(name, "", own.Signer)
	}
	if own.Certificate == nil {
		return nil, usagef("the server that enrolled this machine issues no certificates: omit --entity-scheme")
	}
	c.Client.Identity = nameInCertificate(name)
	return &entityauth.X509Entity{Certificate: own.Certificate, Key: own.Signer}, nil
}
