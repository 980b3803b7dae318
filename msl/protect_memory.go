package msl

import (
	"errors"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// The parts of a message are protected and opened in memory that the next message reuses.
// Keys that are not symmetric use their own memory.

// sealIn encrypts and signs. The results are in mem, which must not overlap the
// plaintext.
func sealIn(mem *wire.Memory, p Protector, plaintext []byte) (data, signature []byte, err error) {
	k, ok := p.(SymmetricKey)
	if !ok {
		if data, err = p.Encrypt(plaintext); err == nil {
			signature, err = p.Sign(data)
		}
		return data, signature, err
	}
	if _, j, ok := jointly(k); ok && len(plaintext) > 0 {
		err = k.sealShared(j, part{mem, plaintext})
		return mem.Content, mem.Tag, err
	}
	if mem.Content, err = k.encrypt(mem, mem.Content[:0], plaintext); err != nil {
		return nil, nil, err
	}
	mem.Tag, err = k.sign(mem.Tag[:0], mem.Content)
	return mem.Content, mem.Tag, err
}

// verifyIn verifies a signature.
func verifyIn(mem *wire.Memory, o Opener, data, signature []byte) (err error) {
	if k, ok := o.(SymmetricKey); ok {
		return k.verify(mem, data, signature)
	}
	return o.Verify(data, signature)
}

// decryptIn appends the plaintext to dst, and does not change data.
func decryptIn(mem *wire.Memory, o Opener, dst, data []byte) ([]byte, error) {
	if k, ok := o.(SymmetricKey); ok {
		return k.decrypt(mem, dst, data)
	}
	plaintext, err := o.Decrypt(data)
	return append(dst, plaintext...), err
}

const ivSize = 16

// encrypt appends a ciphertext envelope to dst.
func (k SymmetricKey) encrypt(mem *wire.Memory, dst, plaintext []byte) ([]byte, error) {
	mem.Scratch = slices.Grow(mem.Scratch[:0], ivSize+len(plaintext)+ivSize)[:ivSize]
	if _, err := io.ReadFull(orRandom(k.Rand), mem.Scratch); err != nil {
		return dst, fail(ErrInternalException, "draw an initialization vector", err)
	}
	if len(plaintext) > 0 { // the reference stacks do not pad an empty plaintext
		sealed, err := keystore.AppendEncrypt(k.Encryption, mem.Scratch, mem.Scratch, plaintext)
		if err != nil {
			return dst, fail(ErrInternalException, "encrypt", err)
		}
		mem.Scratch = sealed
	}
	return ciphertextEnvelope{version: 1, keyID: k.KeyID, iv: mem.Scratch[:ivSize], ciphertext: mem.Scratch[ivSize:]}.append(dst), nil
}

// decrypt appends the content of an envelope to dst.
func (k SymmetricKey) decrypt(mem *wire.Memory, dst, data []byte) ([]byte, error) {
	if len(data) == 0 { // one of the reference stacks writes this for an empty plaintext
		return dst, nil
	}
	e, err := parseDecryptable(mem, data)
	if err != nil {
		return dst, fail(ErrCiphertextEnvelopeParseError, "decrypt", err)
	}
	if len(e.ciphertext) == 0 {
		return dst, nil
	}
	if len(e.iv) != ivSize {
		return dst, fail(ErrInvalidAlgorithmParams, "decrypt", nil)
	}
	if len(e.ciphertext)%16 != 0 {
		return dst, fail(ErrCiphertextIllegalBlockSize, "decrypt", nil)
	}
	plaintext, err := keystore.AppendDecrypt(k.Encryption, dst, e.iv, e.ciphertext)
	if err != nil {
		return dst, KeyFailure(ErrCiphertextBadPadding, "decrypt", err, keystore.ErrBadData)
	}
	return plaintext, nil
}

// sign appends the MAC of data to dst.
func (k SymmetricKey) sign(dst, data []byte) ([]byte, error) {
	sum, err := keystore.AppendSum(k.MAC, dst, data)
	if err != nil {
		return dst, fail(ErrInternalException, "sign", err)
	}
	return sum, nil
}

// verify compares in constant time. If it fails, and the fault is not the sender's but that of
// the device with the key, the error is not errSignature.
func (k SymmetricKey) verify(mem *wire.Memory, data, signature []byte) error {
	sum, err := keystore.Verify(k.MAC, mem.Tag[:0], data, bareSignature(signature, wire.Limits{}))
	switch {
	case errors.Is(err, keystore.ErrBadTag):
		return errSignature
	case err != nil:
		return fail(ErrInternalException, "verify", err)
	}
	mem.Tag = sum
	return nil
}
