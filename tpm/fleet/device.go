package fleet

import (
	"crypto"
	"crypto/rsa"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// A Device is this machine's TPM: its keys, and the identity whose attestation key
// vouches for them. Both fields are required and must belong to the same TPM; the caller
// must close the store. It implements keyx.TPMDevice.
type Device struct {
	Store    *tpm.Store
	Identity *identity.Device
}

var _ keyx.TPMDevice = (*Device)(nil)

// NewParent implements keyx.TPMDevice: it makes a storage key for one key exchange.
func (d *Device) NewParent() (keyx.TPMParent, error) {
	p, err := d.Store.NewImportParent()
	if err != nil {
		return nil, err
	}
	return &parent{p, d}, nil
}

type parent struct {
	*tpm.ImportParent
	device *Device
}

// Certify implements keyx.TPMKey.
func (p *parent) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return p.device.Identity.Certify(p.With, qualifying)
}

// NewDecrypter implements keyx.TPMDevice: it makes an RSA key pair for one key
// exchange.
func (d *Device) NewDecrypter() (keyx.TPMDecrypter, error) {
	k, err := d.Store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		return nil, err
	}
	pair := &decrypter{Key: k, device: d}
	err = pair.lend(func(t transport.TPM, key tpm2.NamedHandle) error {
		r, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(t)
		if err == nil {
			pair.public = r.OutPublic.Bytes()
		}
		return err
	})
	if err != nil {
		k.Close()
		return nil, tpm.CommandError("TPM2_ReadPublic", err)
	}
	return pair, nil
}

type decrypter struct {
	keystore.Key
	device *Device
	public []byte
}

func (d *decrypter) lend(f func(transport.TPM, tpm2.NamedHandle) error) error {
	return d.device.Store.With(d.Key, f)
}

// Public implements keyx.TPMKey.
func (d *decrypter) Public() []byte { return d.public }

// Certify implements keyx.TPMKey.
func (d *decrypter) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return d.device.Identity.Certify(d.lend, qualifying)
}

// DecryptOAEP implements keyx.TPMDecrypter.
func (d *decrypter) DecryptOAEP(ciphertext []byte) ([]byte, error) {
	return d.Key.(crypto.Decrypter).Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
}
