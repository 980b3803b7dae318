package msl

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// If each call into a store takes long, as into another process, one call uses both keys
// of a session: to verify and decrypt, or to encrypt and sign. The header and the first
// chunk of a message share a call as well, unless the device is waited for; then they are
// processed concurrently instead (see earlyChunk and draft).

// jointly returns a key and its way to do several operations in one call, if it has one.
func jointly(key any) (k SymmetricKey, j keystore.Joint, ok bool) {
	if k, ok = key.(SymmetricKey); ok {
		j, ok = k.Encryption.(keystore.Joint)
	}
	return k, j, ok && j.Joins(k.MAC)
}

// shares reports whether the parts of a message share a call.
func shares(key any) bool {
	_, _, ok := jointly(key)
	return ok && !waits(key)
}

// opening returns what there is to open in a part of a message. It is not ok for a part
// whose form forbids opening it, or that is so long that parsing must wait for its
// verification.
func opening(mem *wire.Memory, data, signature []byte) (o keystore.Opening, ok bool) {
	if len(data) == 0 || len(data) > small {
		return o, false
	}
	e, err := parseDecryptable(mem, data)
	if err != nil || len(e.iv) != ivSize || len(e.ciphertext) == 0 || len(e.ciphertext)%16 != 0 {
		return o, false
	}
	return keystore.Opening{Data: data, Tag: bareSignature(signature, wire.Limits{}),
		IV: e.iv, Ciphertext: e.ciphertext, Plaintext: mem.Content[:0]}, true
}

// openIn verifies, then decrypts into mem. A signature that does not match is errSignature.
func openIn(mem *wire.Memory, o Opener, data, signature []byte) ([]byte, error) {
	plaintext, err := openShared(mem, o, data, signature, nil)
	if plaintext != nil || err != nil {
		return plaintext, err
	}
	if err := verifyIn(mem, o, data, signature); err != nil {
		return nil, err
	}
	return decryptIn(mem, o, mem.Content[:0], data)
}

// openShared is openIn in one call, which also opens the first chunk if the rest
// verifies. It returns nothing if that is impossible, or failed other than by the
// signature: the caller then proceeds step by step.
func openShared(mem *wire.Memory, key Opener, data, signature []byte, first *earlyChunk) ([]byte, error) {
	k, j, ok := jointly(key)
	if !ok {
		return nil, nil
	}
	o, ok := opening(mem, data, signature)
	if !ok {
		return nil, nil
	}
	all := append(make([]keystore.Opening, 0, 2), o)
	if chunk, ok := first.opening(); ok {
		all = append(all, chunk)
	}
	opened, err := j.OpenAll(k.MAC, all)
	switch {
	case opened == 0 && errors.Is(err, keystore.ErrBadTag):
		return nil, errSignature
	case opened == 0:
		return nil, nil
	case opened == 2:
		first.finish(all[1].Plaintext)
	}
	return all[0].Plaintext, nil
}

// A part is one of several sealed in one call, with its memory.
type part struct {
	mem       *wire.Memory
	plaintext []byte // in other memory
}

// sealShared encrypts and signs parts in one call. The results are in the parts' memory.
func (k SymmetricKey) sealShared(j keystore.Joint, parts ...part) error {
	all := make([]keystore.Sealing, len(parts))
	for i, p := range parts {
		p.mem.Scratch = slices.Grow(p.mem.Scratch[:0], ivSize+envelopeSize+len(k.KeyID))[:ivSize]
		if _, err := io.ReadFull(orRandom(k.Rand), p.mem.Scratch); err != nil {
			return fail(ErrInternalException, "draw an initialization vector", err)
		}
		e := ciphertextEnvelope{version: 1, keyID: k.KeyID, iv: p.mem.Scratch}
		p.mem.Scratch = e.append(p.mem.Scratch)
		all[i] = keystore.Sealing{IV: p.mem.Scratch[:ivSize], Plaintext: p.plaintext, Data: p.mem.Content[:0], Tag: p.mem.Tag[:0]}
		all[i].Before, all[i].After = aroundCiphertext(p.mem.Scratch[ivSize:])
	}
	if err := j.SealAll(k.MAC, all); err != nil {
		return fail(ErrInternalException, "encrypt and sign", err)
	}
	for i, p := range parts {
		p.mem.Content, p.mem.Tag = all[i].Data, all[i].Tag
	}
	return nil
}

// aroundCiphertext returns the two parts of an envelope without a ciphertext.
func aroundCiphertext(envelope []byte) (before, after []byte) {
	const member = `"ciphertext":"` // in a string its quotation marks would be escaped
	at := bytes.LastIndex(envelope, []byte(member)) + len(member)
	return envelope[:at], envelope[at:]
}
