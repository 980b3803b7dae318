package tpm

import (
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type decrypter struct{ *key }

// Public returns the public key, with which a peer encrypts.
func (k decrypter) Public() crypto.PublicKey { return k.public }

// Decrypt decrypts RSA-OAEP with SHA-1 and no label and, for peers that support nothing
// better, PKCS #1 v1.5 (RFC 8017 sections 7.1 and 7.2). The plaintext is in the memory
// of this process.
func (k decrypter) Decrypt(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) (plain []byte, err error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	scheme, err := decryptScheme(opts)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) != k.algorithm.Size()/8 {
		return nil, fmt.Errorf("tpm: decrypt %d bytes: %w", len(ciphertext), keystore.ErrBadData)
	}
	err = k.use(func(l loadedKey) (err error) {
		plain, err = l.decrypt(scheme, ciphertext)
		return err
	})
	return plain, err
}

// decryptScheme returns a TPMT_RSA_DECRYPT.
func decryptScheme(opts crypto.DecrypterOpts) ([]byte, error) {
	switch opts := opts.(type) {
	case *rsa.OAEPOptions:
		if opts.Hash != crypto.SHA1 || opts.MGFHash > 0 && opts.MGFHash != crypto.SHA1 || len(opts.Label) > 0 {
			return nil, fmt.Errorf("tpm: decrypt RSA-OAEP with %v: %w", opts.Hash, errors.ErrUnsupported)
		}
		scheme := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgOAEP))
		return binary.BigEndian.AppendUint16(scheme, uint16(tpm2.TPMAlgSHA1)), nil
	//lint:ignore SA1019 JWK_RSAES is PKCS #1 v1.5; the caller chose it
	case *rsa.PKCS1v15DecryptOptions:
		return binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgRSAES)), nil
	}
	return nil, fmt.Errorf("tpm: decrypt with %T: %w", opts, errors.ErrUnsupported)
}

// decrypt is TPM2_RSA_Decrypt (TPM 2.0 Library, Part 3, clause 14.3).
func (l loadedKey) decrypt(scheme, ciphertext []byte) ([]byte, error) {
	params := append(append16(nil, ciphertext), scheme...)
	params = append(params, 0, 0) // no label
	r, err := l.tpm.run(command{code: ccRSADecrypt, handles: []entity{l.entity}, session: l.session, params: params, secretOut: true})
	var answered *Error
	if errors.As(err, &answered) && answered.is(tpm2.TPMRCFailure, tpm2.TPMRCValue, tpm2.TPMRCSize) {
		return nil, l.undecrypted("TPM2_RSA_Decrypt")
	}
	return first(ccRSADecrypt, r, err)
}

// undecrypted distinguishes a bad ciphertext from a failed TPM: some TPMs answer
// TPM_RC_FAILURE to data that does not decrypt, and a failed one answers it to every
// command.
func (l loadedKey) undecrypted(name string) error {
	if _, err := l.tpm.run(command{code: ccGetRandom, params: []byte{0, 1}}); err != nil {
		return err
	}
	return fmt.Errorf("tpm: %s: the data does not decrypt: %w", name, keystore.ErrBadData)
}

func isPSS(opts crypto.SignerOpts) bool {
	_, ok := opts.(*rsa.PSSOptions)
	return ok
}
