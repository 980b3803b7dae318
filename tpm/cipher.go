package tpm

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type cipherKey struct{ *key }

// Encrypt pads and encrypts. The TPM takes up to Capabilities.MaxBuffer bytes per
// command, so more data takes several.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize {
		return nil, errIV(iv)
	}
	out := make([]byte, cbc.Padded(len(plaintext)))
	cbc.Pad(out, plaintext)
	if err := k.cbc(iv, out, false); err != nil {
		return nil, err
	}
	return out, nil
}

// Decrypt decrypts, and removes the padding in this process.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize {
		return nil, errIV(iv)
	}
	if !cbc.Whole(len(ciphertext)) {
		return nil, errCiphertext()
	}
	out := append([]byte(nil), ciphertext...)
	if err := k.cbc(iv, out, true); err != nil {
		return nil, err
	}
	plain, ok := cbc.Unpad(out)
	if !ok {
		return nil, errCiphertext()
	}
	return plain, nil
}

// cbc encrypts or decrypts data in place. If it is done twice, because the TPM lost the
// key, it starts from the beginning.
func (k cipherKey) cbc(iv, data []byte, decrypt bool) error {
	in := append([]byte(nil), data...)
	defer clear(in)
	return k.use(func(l loadedKey) error {
		step := l.tpm.caps.MaxBuffer &^ (aes.BlockSize - 1)
		for iv, at := iv, 0; at < len(in); at += step {
			n := min(step, len(in)-at)
			out, next, err := l.cbc(iv, in[at:at+n], decrypt)
			if err != nil {
				return err
			}
			copy(data[at:], out)
			iv = append([]byte(nil), next...)
		}
		return nil
	})
}

// cbc is TPM2_EncryptDecrypt2 (TPM 2.0 Library, Part 3, clause 15.3), whose data, unlike
// that of TPM2_EncryptDecrypt, can be encrypted on the bus. The results are valid until
// the next command.
func (l loadedKey) cbc(iv, data []byte, decrypt bool) (out, next []byte, err error) {
	params := append16(make([]byte, 0, len(data)+23), data)
	if decrypt {
		params = append(params, 1)
	} else {
		params = append(params, 0)
	}
	params = binary.BigEndian.AppendUint16(params, uint16(tpm2.TPMAlgCBC))
	params = append16(params, iv)
	r, err := l.tpm.run(command{code: ccEncryptDecrypt2, handles: []entity{l.entity}, session: l.session, params: params, secretIn: true, secretOut: true})
	if err != nil {
		return nil, nil, err
	}
	out, rest, ok := cut16(r.params)
	next, _, ok2 := cut16(rest)
	if !ok || !ok2 || len(out) != len(data) || len(next) != aes.BlockSize {
		return nil, nil, fmt.Errorf("tpm: TPM2_EncryptDecrypt2: %w", errAnswer())
	}
	return out, next, nil
}

func errCiphertext() error { return fmt.Errorf("tpm: ciphertext: %w", keystore.ErrBadData) }

func errIV(iv []byte) error {
	return fmt.Errorf("tpm: initialization vector of %d bytes: %w", len(iv), keystore.ErrBadData)
}
