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
	return fmt.Errorf("enroll: a device identity must be %v or %v, not %v: %w",
		keystore.ECDSAP256, keystore.RSASign2048, a, errors.ErrUnsupported)
}

func flush(t transport.TPM, h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(t) // the Device flushes the rest
}

// authorized returns a handle with an empty password.
func authorized(h tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h.Handle, Name: h.Name, Auth: tpm2.PasswordAuth(nil)}
}

// A keyring uses the keys of a state file in the TPM.
type keyring struct {
	store *tpm.Store
	file  *file
}

// do gives f exclusive use of the TPM.
func (k keyring) do(f func(transport.TPM) error) error { return k.store.Device().Do(f) }

// create makes a key under the storage key of the identity.
func (k keyring) create(a keystore.Algorithm, restricted bool) (tpm.Blob, error) {
	return k.store.CreateBlob(k.file.state.StorageKey, a, restricted)
}

// use loads a key for f.
func (k keyring) use(t transport.TPM, b tpm.Blob, f func(tpm2.NamedHandle) error) error {
	loaded := false
	b.Parent = k.file.state.StorageKey
	err := k.store.UseBlob(t, b, func(key tpm2.NamedHandle) error {
		loaded = true
		return f(key)
	})
	if !loaded {
		return cleared(err)
	}
	return err
}

// loads returns [ErrCleared] if the TPM does not load a key.
func (k keyring) loads(b tpm.Blob) error {
	return k.do(func(t transport.TPM) error { return k.use(t, b, func(tpm2.NamedHandle) error { return nil }) })
}

// cleared turns the error with which an existing key does not load into [ErrCleared]. An
// empty handle proves nothing about the owner seed; only if the storage key cannot be
// made again, or does not open the key, was the TPM cleared.
func cleared(err error) error {
	if errors.Is(err, keystore.ErrForeign) || errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, tpm2.TPMRCHandle) {
		return proof.Fail(ErrCleared, "%w", err)
	}
	return err
}

// certify is TPM2_Certify of a loaded key by the AK.
func (k keyring) certify(t transport.TPM, key tpm2.NamedHandle, qualifying []byte) (attest, signature []byte, err error) {
	err = k.use(t, *k.file.state.AK, func(ak tpm2.NamedHandle) error {
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

// withEK passes the EK to f, or returns [ErrOtherTPM] if it is not the one in the state
// file.
func (k keyring) withEK(t transport.TPM, f func(ek) error) error {
	return k.file.state.EK.use(t, k.file.path, f)
}

// activate is TPM2_ActivateCredential (TPM 2.0 Library, Part 3, clause 12.5): the TPM
// decrypts the secret only if it has both the EK and the AK.
func (k keyring) activate(t transport.TPM, c proof.Challenge) (secret []byte, err error) {
	err = k.withEK(t, func(ek ek) error {
		return k.use(t, *k.file.state.AK, func(ak tpm2.NamedHandle) error {
			session, end, err := ekSession(t, ek.area)
			if err != nil {
				return err
			}
			defer end()
			r, err := tpm2.ActivateCredential{
				ActivateHandle: authorized(ak),
				KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: session},
				CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential},
				Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Seed},
			}.Execute(t)
			if err != nil {
				return notActivated(t, err)
			}
			secret = r.CertInfo.Buffer
			return nil
		})
	})
	return secret, err
}

// notActivated distinguishes a credential for another TPM from a failing TPM. Some TPMs
// answer TPM_RC_FAILURE to a seed that does not decrypt, and a failed one answers it to
// every command.
func notActivated(t transport.TPM, err error) error {
	err = tpm.CommandError("TPM2_ActivateCredential", err)
	if errors.Is(err, tpm2.TPMRCFailure) {
		if _, failed := (tpm2.GetRandom{BytesRequested: 1}).Execute(t); failed != nil {
			return err
		}
	}
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize, tpm2.TPMRCFailure, tpm2.TPMRCInsufficient, tpm2.TPMRCECCPoint} {
		if errors.Is(err, rc) {
			return proof.Fail(ErrActivation, "the challenge is not for this TPM and its AK: %w", err)
		}
	}
	return err
}

// A signer is an LDevID. It returns [ErrCleared] if the key no longer loads.
type signer struct{ crypto.Signer }

// signer returns the signer of an LDevID.
func (k keyring) signer(b tpm.Blob) (signer, error) {
	b.Parent = k.file.state.StorageKey
	s, err := k.store.BlobSigner(b)
	return signer{s}, err
}

// Sign signs a SHA-256 digest: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5.
func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	return signature, cleared(err)
}

// credentials returns the name, and the LDevIDs with their certificates.
func (k keyring) credentials() (name string, list []Credential, err error) {
	s := &k.file.state
	if s.Identity == nil {
		return "", nil, fmt.Errorf("enroll: %w", ErrNotEnrolled)
	}
	for i, b := range s.Keys {
		c := Credential{Algorithm: b.Algorithm}
		if c.Signer, err = k.signer(b); err != nil {
			return "", nil, err
		}
		if c.Certificate, err = s.certificate(i); err != nil {
			return "", nil, err
		}
		list = append(list, c)
	}
	return s.Identity.Name, list, nil
}
