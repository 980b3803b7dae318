package split

import (
	"fmt"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// mark is what the labels of keys begin with that do another thing in the device.
const mark = "memory:"

// A place is where a key is in the device.
type place struct {
	label     string
	algorithm keystore.Algorithm
}

// placeOf is where a key of algorithm a is that goes by a label.
func placeOf(label string, a keystore.Algorithm) place {
	if stored := stored(a); stored != a {
		return place{mark + label, stored}
	}
	return place{label, a}
}

// stored is the algorithm of the key in the device that does the work of one of algorithm
// a: what would unwrap session keys there decrypts, since they are wanted here.
func stored(a keystore.Algorithm) keystore.Algorithm {
	switch a {
	case keystore.SealSession256, keystore.SealWrapping256:
		return keystore.AES256CBC
	case keystore.SealMAC256:
		return keystore.HMACSHA256
	case keystore.AESUnwrap128:
		return keystore.AESReveal128
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return a - keystore.RSAUnwrap2048 + keystore.RSADecrypt2048
	}
	return a
}

// meant is the inverse of placeOf: the purpose of a key that is in the device under a label
// with the mark. The error is [keystore.ErrWrongKey] if no store of this kind made it.
func (s *Store) meant(in place) (label string, a keystore.Algorithm, err error) {
	label = strings.TrimPrefix(in.label, mark)
	for _, a := range keystore.Algorithms() {
		if stored(a) == in.algorithm && stored(a) != a && keystore.LabelFits(s.prefix, label, a) {
			return label, a, nil
		}
	}
	return "", 0, fmt.Errorf("split: %q in the device is for %v, which is not what such a key does: %w; give it another label there, with the software that made it", in.label, in.algorithm, keystore.ErrWrongKey)
}

// seals reports whether a label is that of a sealing key.
func (s *Store) seals(label string) bool {
	for _, r := range keystore.SealingRoles() {
		if r.Label(s.prefix) == label {
			return true
		}
	}
	return false
}
