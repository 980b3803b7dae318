package identity

import (
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

func checkAlgorithm(a keystore.Algorithm) error {
	if a == keystore.ECDSAP256 || a == keystore.RSASign2048 {
		return nil
	}
	return fmt.Errorf("enroll: a device identity is %v or %v, not %v: %w",
		keystore.ECDSAP256, keystore.RSASign2048, a, errors.ErrUnsupported)
}

func flush(t transport.TPM, h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(t) // the Device flushes what is left
}

// authorized is a handle with an empty password.
func authorized(h tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h.Handle, Name: h.Name, Auth: tpm2.PasswordAuth(nil)}
}

// do lets f have the TPM.
func (d *Device) do(f func(transport.TPM) error) error { return d.store.Device().Do(f) }

// create makes a key under the storage key that the others are under.
func (d *Device) create(a keystore.Algorithm, restricted bool) (tpm.Blob, error) {
	return d.store.CreateBlob(d.s.StorageKey, a, restricted)
}

// use loads a key for f.
func (d *Device) use(t transport.TPM, b tpm.Blob, f func(tpm2.NamedHandle) error) error {
	loaded := false
	b.Parent = d.s.StorageKey
	err := d.store.UseBlob(t, b, func(key tpm2.NamedHandle) error {
		loaded = true
		return f(key)
	})
	if !loaded {
		return cleared(err)
	}
	return err
}

func (d *Device) loads(b tpm.Blob) error {
	return d.do(func(t transport.TPM) error { return d.use(t, b, func(tpm2.NamedHandle) error { return nil }) })
}

// cleared explains why a key of before does not load.
func cleared(err error) error {
	if errors.Is(err, keystore.ErrForeign) || errors.Is(err, keystore.ErrNotFound) {
		return proof.Fail(ErrCleared, "%w", err)
	}
	return err
}

// certify lets the AK say that a loaded key is in its TPM.
func (d *Device) certify(t transport.TPM, key tpm2.NamedHandle, qualifying []byte) (attest, signature []byte, err error) {
	err = d.use(t, *d.s.AK, func(ak tpm2.NamedHandle) error {
		r, err := tpm2.Certify{
			ObjectHandle: authorized(key), SignHandle: authorized(ak),
			QualifyingData: tpm2.TPM2BData{Buffer: qualifying}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(t)
		if err != nil {
			return tpm.CommandError("TPM2_Certify", err)
		}
		attest, signature = r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature)
		return nil
	})
	return attest, signature, err
}

// A signer is an LDevID as the standard library wants it.
type signer struct{ crypto.Signer }

func (d *Device) signer(b tpm.Blob) (signer, error) {
	b.Parent = d.s.StorageKey
	s, err := d.store.BlobSigner(b)
	return signer{s}, err
}

// Sign signs a SHA-256 digest: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5.
func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	return signature, cleared(err)
}
