package keystore

import (
	"encoding/binary"
	"fmt"
)

const (
	sealedVersion = 1
	sealedHeader  = 6  // version, algorithm, sealing key version
	sealedTag     = 32 // HMAC-SHA256
	sealedLabel   = "msl-hsm sealed key v1\x00"
)

// A Sealed is the form of a sealed key outside its store, the same for every
// provider:
//
//	version (1) ‖ algorithm (1) ‖ sealing key version (4) ‖ wrapped key ‖ tag (32)
//
// The tag is an HMAC-SHA256 by the store over what Authenticated returns, so a
// blob is bound to its algorithm, its sealing key and its context.
type Sealed struct {
	Algorithm  Algorithm
	KEKVersion uint32
	Wrapped    []byte
	Tag        []byte
}

// ParseSealed reads a sealed key. What is not one is [ErrForeign].
func ParseSealed(blob []byte) (Sealed, error) {
	if len(blob) < sealedHeader+sealedTag+16 || blob[0] != sealedVersion {
		return Sealed{}, fmt.Errorf("keystore: not a sealed key: %w", ErrForeign)
	}
	s := Sealed{
		Algorithm:  Algorithm(blob[1]),
		KEKVersion: binary.BigEndian.Uint32(blob[2:]),
		Wrapped:    blob[sealedHeader : len(blob)-sealedTag],
		Tag:        blob[len(blob)-sealedTag:],
	}
	if !s.Algorithm.Secret() || s.Algorithm.Sealing() {
		return Sealed{}, fmt.Errorf("keystore: sealed key of unknown algorithm: %w", ErrForeign)
	}
	return s, nil
}

// Bytes returns the blob that ParseSealed reads.
func (s Sealed) Bytes() []byte {
	return append(append(s.header(), s.Wrapped...), s.Tag...)
}

// Authenticated returns the bytes that the tag covers: a fixed label, the blob
// without its tag, and the context, each of known length.
func (s Sealed) Authenticated(context []byte) []byte {
	b := append([]byte(sealedLabel), s.header()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Wrapped)))
	b = append(b, s.Wrapped...)
	return append(b, context...)
}

func (s Sealed) header() []byte {
	b := make([]byte, 0, sealedHeader+len(s.Wrapped)+sealedTag)
	b = append(b, sealedVersion, byte(s.Algorithm))
	return binary.BigEndian.AppendUint32(b, s.KEKVersion)
}
