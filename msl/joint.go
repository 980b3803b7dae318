package msl

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// Where each call into a store is a long way, such as into another process, both keys of a
// session are used in one call: to verify and decrypt, or to encrypt and sign. The header and
// the first chunk of a message share a call, too, unless the device is waited for; then they
// are done at the same time instead (see earlyChunk and draft).

// jointly returns a key and its means to do several things in one call, if it has any.
func jointly(key any) (k SymmetricKey, j keystore.Joint, ok bool) {
	if k, ok = key.(SymmetricKey); ok {
		j, ok = k.Encryption.(keystore.Joint)
	}
	return k, j, ok && j.Joins(k.MAC)
}

// shares reports whether the parts of a message are to share a call.
func shares(key any) bool {
	_, _, ok := jointly(key)
	return ok && !waits(key)
}

// opening returns what there is to open in a part of a message. It is not ok for a part that
// may not open for its form, or is so long that its parsing has to wait until it is verified.
func opening(mem *wire.Memory, data, signature []byte) (o keystore.Opening, ok bool) {
	if len(data) == 0 || len(data) > small {
		return o, false
	}
	e, err := parseCiphertextEnvelope(mem, data, wire.Limits{Object: len(data)})
	if err != nil || e.version != 1 || len(e.iv) != ivSize || len(e.ciphertext) == 0 || len(e.ciphertext)%16 != 0 {
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

// openShared is openIn in one call, in which the first chunk is opened, too, if the rest is
// good. It returns nothing for what cannot be opened so, or failed in another way than by its
// signature: that is to be done again step by step.
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

// A part is one of those that are sealed in one call, and the memory for it.
type part struct {
	mem       *wire.Memory
	plaintext []byte // in other memory
}

// sealShared encrypts and signs parts in one call. The results are in their memory.
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
