package keystore

import (
	"encoding/binary"
	"fmt"
)

const (
	sealedVersion = 1
	sealedFormed  = 2  // with the form, where it is not 0
	sealedHeader  = 6  // version, algorithm, sealing key version
	sealedTag     = 32 // HMAC-SHA256
	sealedLabel   = "msl-hsm sealed key v1\x00"
)

// A Sealed is the form of a sealed key outside its store, the same for every
// provider:
//
//	version (1) ‖ algorithm (1) ‖ sealing key version (4) ‖ wrapped key ‖ tag (32)
//
// The version is 1. If the key was not wrapped in the store's usual form the version is 2,
// and one byte for the form follows the sealing key version.
//
// The tag is an HMAC-SHA256 by the store over what Authenticated returns, so a
// blob is bound to its algorithm, its sealing key and its context.
type Sealed struct {
	Algorithm  Algorithm
	KEKVersion uint32
	Form       byte // how the key was wrapped, numbered by each store; 0 is the usual way
	Wrapped    []byte
	Tag        []byte
}

// ParseSealed reads a sealed key. Anything else is [ErrForeign].
func ParseSealed(blob []byte) (Sealed, error) {
	if len(blob) < sealedHeader+sealedTag+16 || blob[0] != sealedVersion && blob[0] != sealedFormed {
		return Sealed{}, fmt.Errorf("keystore: not a sealed key: %w", ErrForeign)
	}
	s := Sealed{
		Algorithm:  Algorithm(blob[1]),
		KEKVersion: binary.BigEndian.Uint32(blob[2:]),
		Wrapped:    blob[sealedHeader : len(blob)-sealedTag],
		Tag:        blob[len(blob)-sealedTag:],
	}
	if blob[0] == sealedFormed {
		s.Form, s.Wrapped = s.Wrapped[0], s.Wrapped[1:]
		if s.Form == 0 {
			return Sealed{}, fmt.Errorf("keystore: sealed key of two spellings: %w", ErrForeign)
		}
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
	b := make([]byte, 0, sealedHeader+1+len(s.Wrapped)+sealedTag)
	if s.Form == 0 {
		return binary.BigEndian.AppendUint32(append(b, sealedVersion, byte(s.Algorithm)), s.KEKVersion)
	}
	b = binary.BigEndian.AppendUint32(append(b, sealedFormed, byte(s.Algorithm)), s.KEKVersion)
	return append(b, s.Form)
}
