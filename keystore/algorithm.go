package keystore

import "fmt"

// An Algorithm is what a key is for: one primitive, one size, one direction of
// trust. Wrapping and unwrapping are different algorithms, and so are signing,
// unwrapping and decrypting with RSA: a key for one never does the other.
type Algorithm uint8

const (
	// AES128CBC encrypts data: a [Cipher] with 16 key bytes.
	AES128CBC Algorithm = iota + 1
	// AES256CBC encrypts data: a [Cipher] with 32 key bytes.
	AES256CBC
	// HMACSHA256 authenticates data: a [MAC] with 32 key bytes.
	HMACSHA256
	// AESCMAC128 authenticates data: a [MAC] with 16 key bytes.
	AESCMAC128
	// AESWrap128 wraps keys for a peer that has the same key: a [Wrapper].
	AESWrap128
	// AESUnwrap128 unwraps what a peer wrapped: an [Unwrapper].
	AESUnwrap128
	// SealSession256 is the key-encryption key of session keys. It has no
	// operations of its own: [Store.Seal] and [Store.Unseal] use it.
	SealSession256
	// SealWrapping256 is the key-encryption key of wrapping keys, which may
	// themselves wrap keys and nothing else.
	SealWrapping256
	// SealMAC256 binds sealed blobs to their context.
	SealMAC256
	// RSASign2048 and the larger sizes sign: a crypto.Signer for PKCS #1 v1.5 with SHA-256.
	RSASign2048
	RSASign3072
	RSASign4096
	// RSAUnwrap2048 and the larger sizes unwrap keys: an [Unwrapper] whose public half is
	// given by its Public method.
	RSAUnwrap2048
	RSAUnwrap3072
	RSAUnwrap4096
	// ECDSAP256 and ECDSAP384 sign: a crypto.Signer that returns ASN.1 DER.
	ECDSAP256
	ECDSAP384

	// The next algorithms bring bytes into this process, on purpose. They come last because
	// sealed keys name algorithms by number.

	// RSADecrypt2048 and the larger sizes decrypt what a peer encrypted into the memory of
	// this process: a crypto.Decrypter for RSA-OAEP with SHA-1.
	RSADecrypt2048
	RSADecrypt3072
	RSADecrypt4096
	// AESReveal128 unwraps into the memory of this process: a [Revealer].
	AESReveal128

	// HMACSHA256Block authenticates data: a [MAC] whose key is a whole block of
	// SHA-256, 64 bytes. A key of HMACSHA256 in this form, see [HMACBlock],
	// computes the same tags. It protects against an attack with C_DigestKey:
	// anybody with the PIN of a PKCS #11 token can hash keys that cannot be read,
	// and so compute keys that are derived from such a hash, like the wrapping key
	// of pre-shared keys.
	HMACSHA256Block
	// RSAPSS2048 and the larger sizes sign: a crypto.Signer for RSASSA-PSS with SHA-256,
	// SHA-384 or SHA-512 and a salt as long as the hash (RFC 8017 section 8.1), the RSA
	// signatures of TLS 1.3 (RFC 8446 section 4.2.3).
	RSAPSS2048
	RSAPSS3072
	RSAPSS4096

	algorithmEnd
)

var algorithms = [algorithmEnd]struct {
	name string
	size int // key bytes of a secret key, modulus or field bits of a pair
}{
	AES128CBC:       {"aes128-cbc", 16},
	AES256CBC:       {"aes256-cbc", 32},
	HMACSHA256:      {"hmac-sha256", 32},
	AESCMAC128:      {"aes128-cmac", 16},
	AESWrap128:      {"aes128-wrap", 16},
	AESUnwrap128:    {"aes128-unwrap", 16},
	SealSession256:  {"seal-session", 32},
	SealWrapping256: {"seal-wrapping", 32},
	SealMAC256:      {"seal-mac", 32},
	RSASign2048:     {"rsa2048-sign", 2048},
	RSASign3072:     {"rsa3072-sign", 3072},
	RSASign4096:     {"rsa4096-sign", 4096},
	RSAUnwrap2048:   {"rsa2048-unwrap", 2048},
	RSAUnwrap3072:   {"rsa3072-unwrap", 3072},
	RSAUnwrap4096:   {"rsa4096-unwrap", 4096},
	ECDSAP256:       {"ecdsa-p256", 256},
	ECDSAP384:       {"ecdsa-p384", 384},
	RSADecrypt2048:  {"rsa2048-decrypt", 2048},
	RSADecrypt3072:  {"rsa3072-decrypt", 3072},
	RSADecrypt4096:  {"rsa4096-decrypt", 4096},
	AESReveal128:    {"aes128-reveal", 16},
	HMACSHA256Block: {"hmac-sha256-block", 64},
	RSAPSS2048:      {"rsa2048-pss", 2048},
	RSAPSS3072:      {"rsa3072-pss", 3072},
	RSAPSS4096:      {"rsa4096-pss", 4096},
}

// String returns the name that ParseAlgorithm reads.
func (a Algorithm) String() string {
	if !a.Valid() {
		return fmt.Sprintf("algorithm(%d)", uint8(a))
	}
	return algorithms[a].name
}

// Valid reports whether a is a constant of this package.
func (a Algorithm) Valid() bool { return a > 0 && a < algorithmEnd }

// Size is the length of a secret key in bytes, or the modulus or field size of
// a key pair in bits.
func (a Algorithm) Size() int {
	if !a.Valid() {
		return 0
	}
	return algorithms[a].size
}

// Secret reports whether a is a symmetric algorithm.
func (a Algorithm) Secret() bool {
	return a.Valid() && a < RSASign2048 || a == AESReveal128 || a == HMACSHA256Block
}

// Sealing reports whether a is one of the store's own sealing keys, which are
// only ever made by an Admin.
func (a Algorithm) Sealing() bool { return a >= SealSession256 && a <= SealMAC256 }

// SealsKeys reports whether keys for a seal other keys.
func (a Algorithm) SealsKeys() bool { return a == SealSession256 || a == SealWrapping256 }

// PSS reports whether a signs with RSASSA-PSS.
func (a Algorithm) PSS() bool { return a >= RSAPSS2048 && a <= RSAPSS4096 }

// HMACBlock returns the key for [HMACSHA256Block] that computes the same tags as the
// [HMACSHA256] key raw: HMAC pads a key with zeros to the block of its hash (RFC 2104
// section 2). For a key longer than a block it returns nil. The caller wipes both.
func HMACBlock(raw []byte) []byte {
	if len(raw) > HMACSHA256Block.Size() {
		return nil
	}
	block := make([]byte, HMACSHA256Block.Size())
	copy(block, raw)
	return block
}

// Algorithms lists every algorithm.
func Algorithms() []Algorithm {
	all := make([]Algorithm, 0, algorithmEnd-1)
	for a := Algorithm(1); a < algorithmEnd; a++ {
		all = append(all, a)
	}
	return all
}

// ParseAlgorithm reads a name that String wrote.
func ParseAlgorithm(name string) (Algorithm, error) {
	for _, a := range Algorithms() {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("keystore: unknown algorithm %q", name)
}

// MarshalText writes the name.
func (a Algorithm) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the name.
func (a *Algorithm) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAlgorithm(string(text))
	return err
}
